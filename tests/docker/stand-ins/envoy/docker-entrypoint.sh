#!/bin/sh
# What the official image's entry point does for a user other than root.
set -e
case $1 in
  -*) set -- envoy "$@" ;;
esac
exec "$@"
