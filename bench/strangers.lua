-- Every request comes from another client: with a cookie that looks like a token, is none, and was never seen before.
dofile(debug.getinfo(1, "S").source:match("^@(.*/)") .. "report.lua")

local count = 0

function request()
  count = count + 1
  -- Format 1, any key, and an end that is canonical base64url: it takes the filter as far as looking for the key.
  return wrk.format(nil, nil, {["Cookie"] = string.format("__Host-session=AQ%055dA", count)})
end
