<%@ page contentType="text/html; charset=UTF-8" import="java.util.stream.Collectors" %><%!
  private static String escape(Object text) {
    return String.valueOf(text).chars()
        .mapToObj(c -> "<>&\"'".indexOf(c) < 0 ? Character.toString(c) : "&#" + c + ";")
        .collect(Collectors.joining());
  }
%><%
  // The classic page: a stock Tomcat shows its own session, in the colour of the server.
  String colour = System.getProperty("demo.colour");
  String user = request.getHeader("x-session-subject");
  String data = request.getHeader("x-session-data");
  response.setHeader("cache-control", "no-cache");
  // The empty icon below keeps browsers from requesting /favicon.ico, which would take the other server's turn.
%><!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<link rel="icon" href="data:,">
<title><%= escape(colour) %>: session-mesh</title>
<style>
  body { margin: 0; min-height: 100vh; display: grid; place-items: center; color: #fff; font: 1.1rem/1.5 system-ui, sans-serif }
  .red { background: #b3202a } .blue { background: #1f4fa8 }
  main { padding: 2rem; max-width: 44rem }
  h1 { font-size: 4rem; line-height: 1; margin: 0 0 2rem }
  dl { display: grid; grid-template-columns: max-content 1fr; gap: .5rem 1.5rem; margin: 0 0 2rem }
  dt { opacity: .8 } dd { margin: 0; font-weight: 600; overflow-wrap: anywhere }
  code { font: inherit; font-family: ui-monospace, monospace }
  a { color: inherit }
</style>
<body class="<%= escape(colour) %>">
<main>
  <h1><%= escape(colour) %></h1>
  <dl>
    <dt>session.getId()</dt><dd><code id="session"><%= escape(session.getId()) %></code></dd>
    <dt>user</dt><dd id="user"><%= escape(user == null ? "not logged in" : user) %></dd>
    <dt>shared data</dt><dd><code id="data"><%= escape(data == null ? "none" : data) %></code></dd>
    <dt>served by</dt><dd><%= escape(application.getServerInfo()) %> on port <%= request.getLocalPort() %></dd>
  </dl>
  <p>Reload: the colour changes, the session stays the same.
  <a href="login.jsp">Log in as alice</a>: Tomcat changes its id, and the other Tomcat follows.</p>
</main>
</html>
