#!/bin/sh
# The health check: both parts of nginx answer, and the loop that follows the replicas still runs.
set -eu
[ -n "$(find /tmp/nginx/following -newermt '-30 seconds')" ] || { echo "the replicas are not followed" && exit 1; }
curl --fail --silent --show-error --max-time 1 http://127.0.0.1:8081/status
curl --fail --silent --show-error --max-time 1 --unix-socket /tmp/nginx/balancer.sock http://balancer/balancer
