#!/bin/sh
# Runs the balancer and follows the replicas of the service: nginx resolves names only when it reads its
# configuration, so that is written and read anew when addresses come and go. `follow.sh once` writes it for the start.
#
# A replica is added once it is ready. One that is gone is left in for a while, which costs one short attempt every
# ten seconds: a container that comes back mostly has the address that it had. When it is ready again the
# configuration is read anew, because nginx would not ask it for up to ten seconds after it failed.
set -eu

FILE=/tmp/nginx/replicas.conf
STATE=/tmp/nginx/replicas # a line "<address> <seconds when it was last named> <ready or out>" each
ALIVE=/tmp/nginx/following
PID=/tmp/nginx/balancer.pid
GONE_S=30

named() {
  getent ahostsv4 "$PROXY_SERVICE" | awk '{ print $1 }' | sort -u
}

ready() {
  curl --fail --silent --output /dev/null --max-time 1 "http://$1:8000/readyz"
}

# Lines of the state after another look: what is known and was named lately, and what is new and ready.
look() {
  now_s=$(date +%s)
  names=$(named || true)
  while read -r address seen_s _; do
    if echo "$names" | grep -qxF "$address"; then
      if ready "$address"; then echo "$address $now_s ready"; else echo "$address $now_s out"; fi
    elif [ $((now_s - seen_s)) -lt $GONE_S ]; then
      echo "$address $seen_s out"
    fi
  done <$STATE
  for address in $names; do
    if ! grep -qF "$address " $STATE && ready "$address"; then
      echo "$address $now_s ready"
    fi
  done
}

servers() { # PORT
  if [ -s $STATE ]; then
    awk -v port="$1" '{ print "    server " $1 ":" port " max_fails=1 fail_timeout=10s;" }' $STATE
  else
    echo "    server 127.0.0.1:$1 down;" # nginx wants one
  fi
}

write() {
  {
    printf 'upstream octet {\n    zone octet 256k;\n    least_conn;\n'
    servers 8000
    # Shorter than the service keeps an idle connection (5 s), so that none is used that it just closes.
    printf '    keepalive 64;\n    keepalive_requests 100000;\n    keepalive_timeout 4s;\n}\n'
    printf 'upstream octet_grpc {\n    zone octet_grpc 256k;\n    least_conn;\n'
    servers 8001
    printf '    keepalive 64;\n}\n'
  } >$FILE.new
  mv $FILE.new $FILE
}

addresses() {
  awk '{ print $1 }' $STATE | sort
}

# Whether others are known than before, or one is ready again.
turn() {
  before=$(addresses)
  look >$STATE.new
  back=$(awk 'NR == FNR { was[$1] = $3; next } $3 == "ready" && was[$1] == "out"' $STATE $STATE.new)
  mv $STATE.new $STATE
  [ "$(addresses)" != "$before" ] || [ -n "$back" ]
}

touch $STATE
if [ "${1:-}" = once ]; then
  turn || true
  write
  exit
fi
while true; do
  if turn; then
    write
    echo "replicas: $(addresses | tr '\n' ' ')" >&2
    kill -HUP "$(cat $PID)" || true
  fi
  # It is started here, and again should it ever end.
  kill -0 "$(cat $PID 2>/dev/null)" 2>/dev/null || { rm -f /tmp/nginx/*.sock && nginx -c /tmp/nginx/balancer.conf; }
  touch $ALIVE
  sleep 1
done
