#!/bin/sh
# An agent in plain curl.
#
#   curl_agent.sh pull AGENT COMMAND…     fetch one invocation of AGENT (`protocol: pull`), run COMMAND, report
#   curl_agent.sh run FILE COMMAND…       the same for a delivery that a webhook brought and that was answered with 202
#
# COMMAND gets the delivery's JSON on its standard input.  Its output is the result; its exit code says the rest: 0 is done,
# 75 failed and may be tried again, any other failed for good.  It is stopped where a heartbeat's answer asks for that.
# Needs NIGHTBELL_API and NIGHTBELL_AGENT_KEY for `pull`.  python3 only reads and writes JSON here.
set -eu

field() { python3 -c 'import json, sys
found = json.load(sys.stdin)
for name in sys.argv[1].split("."):
    found = found[int(name)] if isinstance(found, list) else found.get(name, "")
print(found if isinstance(found, str) else json.dumps(found))' "$1"; }

post() { # URL TOKEN JSON
    curl --silent --show-error --fail-with-body --retry 5 --retry-connrefused --max-time 75 \
        -H "authorization: Bearer $2" -H 'content-type: application/json' -d "$3" "$1"
}

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
how=$1 what=$2
shift 2

if [ "$how" = pull ]; then
    leased=$(post "$NIGHTBELL_API/v1/agents/$what/leases" "$NIGHTBELL_AGENT_KEY" '{"max": 1, "wait_s": 30}')
    [ "$(echo "$leased" | field items)" != "[]" ] || { echo "nothing to do"; exit 0; }
    echo "$leased" | field items.0.delivery > "$folder/delivery.json"
else
    cp "$what" "$folder/delivery.json"
fi
url=$(field links.complete < "$folder/delivery.json") url=${url%/complete}
token=$(field links.token < "$folder/delivery.json")

post "$url/checkpoint" "$token" '{"checkpoint": {"began": true}}' > /dev/null
"$@" < "$folder/delivery.json" > "$folder/result.txt" &
worker=$!
while kill -0 "$worker" 2> /dev/null; do
    beat=$(post "$url/heartbeat" "$token" '{}') || beat='{}'
    if [ "$(echo "$beat" | field stop)" = true ]; then
        kill "$worker" 2> /dev/null || true
        post "$url/complete" "$token" '{"outcome": "stopped"}'
        exit 0
    fi
    sleep 1
done

code=0
wait "$worker" || code=$?
case $code in
    0) post "$url/complete" "$token" "$(python3 -c 'import json, sys; print(json.dumps({"outcome": "done", "result": sys.stdin.read()}))' < "$folder/result.txt")" ;;
    75) post "$url/fail" "$token" '{"error": "exit 75", "retryable": true}' ;;
    *) post "$url/fail" "$token" "{\"error\": \"exit $code\", \"retryable\": false}" ;;
esac
echo
