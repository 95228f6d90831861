#!/usr/bin/env bash
# Runs one of the demo's Tomcats in the foreground: tomcat.sh PORT red|blue FOLDER
#
# FOLDER takes what Tomcat writes (compiled pages, temporary files) and must exist. TOMCAT_BASE is a base folder to use instead
# of the demo's. Used by demo.sh and the end-to-end tests. The process becomes Java itself, so that its id is the one to kill.
set -euo pipefail
port=$1 colour=$2 folder=$3

root=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.." && pwd)
home=${CATALINA_HOME:-/usr/share/tomcat10}
[[ -e $home/bin/bootstrap.jar ]] || {
  echo "Tomcat 10 is missing: apt-get install tomcat10-common, or set CATALINA_HOME" >&2
  exit 1
}
mkdir -p "$folder/work" "$folder/webapps" "$folder/tmp"

# The first-stage compiler only: a demo lives too short for the second to pay.
exec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx192m \
  -cp "$home/bin/bootstrap.jar:$home/bin/tomcat-juli.jar" \
  -Dcatalina.home="$home" -Dcatalina.base="${TOMCAT_BASE:-$root/demo/tomcat}" -Djava.io.tmpdir="$folder/tmp" \
  -Ddemo.port="$port" -Ddemo.colour="$colour" -Ddemo.work="$folder" \
  org.apache.catalina.startup.Bootstrap start
