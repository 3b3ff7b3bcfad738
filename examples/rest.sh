#!/usr/bin/env bash
# The REST interface of Dagbok from start to end, with curl alone.
#
#   dagbok serve                 # in one terminal
#   bash examples/rest.sh        # in another
#
# DAGBOK_URL names a server elsewhere. What is made here is deleted again at the end.
set -euo pipefail

URL=${DAGBOK_URL:-http://127.0.0.1:3000}
API=$URL/api/v1

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say() { printf '\n== %s\n' "$*"; }
fail() {
  printf '%s\n' "$*" >&2
  exit 1
}

# call METHOD URL [more of curl's arguments]: shows the request and its status; leaves $status, $work/head, $work/body.
call() {
  local method=$1 url=$2
  shift 2
  printf '%s %s' "$method" "${url#"$URL"}"
  status=$(curl --silent --show-error --max-time 90 --request "$method" --dump-header "$work/head" \
    --output "$work/body" --write-out '%{http_code}' "$@" "$url") || fail " -> $URL stopped answering."
  printf ' -> %s\n' "$status"
}

expect() { [ "$status" = "$1" ] || fail "Expected $1, got $status: $(cat "$work/body")"; }

# header NAME: its value in the last answer.
header() { tr -d '\r' <"$work/head" | grep -i "^$1: " | sed 's/^[^:]*: //'; }

# text NAME: the first string of that name in the last answer. Enough for ids and words; programs have a JSON parser.
text() { grep -o "\"$1\":\"[^\"]*\"" "$work/body" | head -n 1 | cut -d '"' -f 4; }

curl --silent --output /dev/null --max-time 10 "$URL/health" ||
  fail "No Dagbok server answers at $URL. Start one with \`dagbok serve\`, or name another in DAGBOK_URL."

say "Is it ready to take plans?"
call GET "$URL/health/ready"
expect 200
echo "   model: $(text model)"

say "Run a plan, and wait up to 20 seconds for its result"
# A plan: what was asked, and sub-tasks. 1 and 2 run side by side, 3 once both have ended.
cat >"$work/plan.json" <<'PLAN'
{
  "original_request": "Show me that independent steps run side by side",
  "intent": {"primary": "demonstrate"},
  "sub_tasks": [
    {"id": "1", "action_type": "tool", "tool_or_prompt": {"name": "wait", "params": {"seconds": 0.5}}},
    {"id": "2", "action_type": "tool", "tool_or_prompt": {"name": "wait", "params": {"seconds": 0.5}}},
    {"id": "3", "action_type": "tool", "tool_or_prompt": {"name": "wait", "params": {"seconds": 0.1}},
     "dependencies": ["1", "2"]}
  ]
}
PLAN
# Our own name for this request: sent twice, it runs once.
key="rest-example-$$-$(date +%s)"
submit() {
  call POST "$API/execute-dag" --header 'Content-Type: application/json' --header "Idempotency-Key: $key" \
    --header 'Prefer: wait=20' --data-binary "@$work/plan.json"
}
submit
expect 200
location=$(header Location)
id=${location##*/}
echo "   $id is $(text status)"

say "Send the same request again, as after a lost connection: the same execution, not a second one"
submit
expect 200
echo "   Idempotent-Replayed: $(header Idempotent-Replayed)"
[ "$(header Location)" = "$location" ] || fail "The same key made another execution."

say "Look at the execution, and at its sub-steps"
call GET "$URL$location"
expect 200
etag=$(header ETag)
grep -oE '"(totalTasks|completedTasks|durationMs)":[0-9]+' "$work/body" | head -n 3 | sed 's/^/   /'
call GET "$URL$location/sub-steps"
expect 200
grep -oE '"(taskId|status)":"[^"]*"' "$work/body" | paste -d ' ' - - | sed 's/^/   /'

say "Ask whether it changed since: 304 says no, and sends nothing"
call GET "$URL$location" --header "If-None-Match: $etag"
expect 304

say "List the last two that completed"
call GET "$API/dag-executions?limit=2&status=completed"
expect 200
grep -o '"id":"dag-exec_[^"]*"' "$work/body" | cut -d '"' -f 4 | sed 's/^/   /'

say "Send a plan that cannot run: every problem at once, each with its place"
call POST "$API/execute-dag" --header 'Content-Type: application/json' --data-binary '{
  "original_request": "Break", "intent": {"primary": "break"},
  "sub_tasks": [{"id": "1", "tool_or_prompt": {"name": "no_such_tool", "params": {}}, "dependencies": ["9"]}]}'
expect 422
grep -o '"pointer":"[^"]*","code":"[^"]*"' "$work/body" | cut -d '"' -f 4,8 | tr '"' ' ' | sed 's/^/   /'

say "Start one that takes longer, for ten minutes at most, and pause it: what runs ends, and nothing more begins"
call POST "$API/execute-dag" --header 'Content-Type: application/json' --data-binary '{
  "plan": {
    "original_request": "Show me how to stop", "intent": {"primary": "demonstrate"},
    "sub_tasks": [
      {"id": "1", "tool_or_prompt": {"name": "wait", "params": {"seconds": 2}}},
      {"id": "2", "tool_or_prompt": {"name": "wait", "params": {"seconds": 60}}, "dependencies": ["1"]}]},
  "options": {"deadlineSeconds": 600}}'
expect 202
longer=$(header Location)
call POST "$URL$longer/pause" --header 'Content-Type: application/json' --data '{"by": "rest.sh"}'
expect 202
call GET "$URL$longer" --header 'Prefer: wait=20'
expect 200
echo "   ${longer##*/} is $(text status), paused since $(text pausedAt)"
grep -oE '"(taskId|status)":"[^"]*"' "$work/body" | tail -n 4 | paste -d ' ' - - | sed 's/^/   /'

say "Let it go on; then cancel it, which takes no body either"
call POST "$URL$longer/resume"
expect 202
call POST "$URL$longer/cancel"
expect 202
call GET "$URL$longer" --header 'Prefer: wait=20'
expect 200
echo "   ${longer##*/} is $(text status)"

say "Delete both executions, with all they wrote"
call DELETE "$URL$longer"
expect 200
call DELETE "$URL$location"
expect 200
call GET "$URL$location"
expect 404

say "That was all. $URL/docs shows the rest."
