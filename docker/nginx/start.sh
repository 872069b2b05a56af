#!/bin/sh
# Starts nginx twice, as the front and as the balancer behind it: makes a certificate where there is none, and
# renders the templates.
set -eu

export PROXY_SERVICE="${PROXY_SERVICE:-service}"
export PROXY_NAME="${PROXY_NAME:-localhost}"
export PROXY_HTTPS_PORT="${PROXY_HTTPS_PORT:-8443}"
export PROXY_WORKERS="${PROXY_WORKERS:-2}"
export PROXY_RATE="${PROXY_RATE:-500}"
export PROXY_BURST="${PROXY_BURST:-1000}"
export PROXY_CONNECTIONS="${PROXY_CONNECTIONS:-256}"
export PROXY_TRUSTED="${PROXY_TRUSTED:-}"
export OCTET_MAX_BODY_BYTES="${OCTET_MAX_BODY_BYTES:-16777216}"
OCTET_DEADLINE_MS="${OCTET_DEADLINE_MS:-10000}"
OCTET_BODY_TIMEOUT_S="${OCTET_BODY_TIMEOUT_S:-30}"

# The service answers by itself when a deadline or a body is late; nginx waits a little longer than that.
export PROXY_READ_S=$((OCTET_DEADLINE_MS / 1000 + 5))
export PROXY_FRONT_READ_S=$((PROXY_READ_S + 5))
export PROXY_BODY_S=$((${OCTET_BODY_TIMEOUT_S%.*} + 5))
export PROXY_PORT_SUFFIX=":$PROXY_HTTPS_PORT"
[ "$PROXY_HTTPS_PORT" = 443 ] && PROXY_PORT_SUFFIX=""
export PROXY_REAL_IP=""
for network in $PROXY_TRUSTED; do
  PROXY_REAL_IP="$PROXY_REAL_IP set_real_ip_from $network;"
done
[ -z "$PROXY_REAL_IP" ] || PROXY_REAL_IP="$PROXY_REAL_IP real_ip_header X-Forwarded-For; real_ip_recursive on;"

fail() {
  echo "error: $1" >&2
  exit 1
}

make_certificate() {
  folder=/certificates
  if [ -e $folder/tls.crt ] || [ -e $folder/tls.key ]; then
    [ -r $folder/tls.crt ] || fail "$folder/tls.crt is missing or not readable by user $(id -u)"
    [ -r $folder/tls.key ] || fail "$folder/tls.key is missing or not readable by user $(id -u)"
    return
  fi
  echo "no certificate in $folder: making one that signs itself, for $PROXY_NAME" >&2
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 365 \
    -subj "/CN=$PROXY_NAME" -addext "subjectAltName=DNS:$PROXY_NAME,DNS:localhost,IP:127.0.0.1" \
    -keyout $folder/.tls.key -out $folder/.tls.crt 2>/dev/null || fail "cannot make a certificate in $folder"
  # Renamed only when whole: a kill leaves no half of a pair behind that the next start would take.
  mv $folder/.tls.crt $folder/tls.crt
  mv $folder/.tls.key $folder/tls.key
}

render() {
  names=$(env | sed -n 's/^\(\(PROXY\|OCTET\)_[A-Z_]*\)=.*/${\1}/p' | tr '\n' ' ')
  for template in /octet/*.template; do
    envsubst "$names" <"$template" >"/tmp/nginx/$(basename "$template" .template)"
  done
}

mkdir -p /tmp/nginx
rm -f /tmp/nginx/*.sock # of a start that was killed
make_certificate
render
/octet/follow.sh once
for part in balancer front; do
  nginx -t -q -c /tmp/nginx/$part.conf || fail "the configuration of the $part is not valid; see above"
done
/octet/follow.sh &
exec nginx -c /tmp/nginx/front.conf -g 'daemon off;'
