"""automagik and its asynchronous runs. The service has no client SDK and needs a model and a database: made by hand after its source."""

import json
import urllib.error
import urllib.request

from golden import Relay, Stable, exchange, talk, write

FROM = "hand-made after the source of automagik 0.6.19 (agent_routes.py, agent_controller.py)"
RUN, ASYNC, STATUS = "/api/v1/agent/{agent}/run", "/api/v1/agent/{agent}/run/async", "/api/v1/run/{run_id}/status"
relay = Relay()
STABLE = Stable()
SESSION, USER = "5f3c1b1e-0000-4000-8000-00000000000a", "5f3c1b1e-0000-4000-8000-00000000000b"
RUN_ID = "5f3c1b1e-0000-4000-8000-00000000000c"


def send(target, asked, answer, status=200):
    relay.replies(answer, status=status)
    body = None if asked is None else json.dumps(asked, ensure_ascii=False).encode()
    request = urllib.request.Request(relay.url + target, body, {"content-type": "application/json", "x-api-key": "none"})
    try:
        urllib.request.urlopen(request).read()
    except urllib.error.HTTPError:
        pass
    return relay.last()


ASKED = {"message_content": "Buenas", "message_type": "text", "session_name": "teste", "session_origin": "automagik-agent", "user_id": USER, "message_limit": 10}
ANSWER = {"message": "Olá, Ana!", "session_id": SESSION, "success": True, "tool_calls": [], "tool_outputs": [], "user_id": USER,
          "usage": {"framework": "pydantic_ai", "total_tokens": 13}}
META = {"channel": "automagik-agent", "usage": ANSWER["usage"]}

write("automagik", "plain", "A new session is named by its caller; the answer has its id.", FROM, exchange(
    send("/api/v1/agent/simple/run", ASKED, ANSWER), RUN, talk("Buenas", "Olá, Ana!", session=SESSION, user=USER, agent="simple", **META)))

calls = [{"tool_name": "weather", "args": {"city": "Lisbon"}, "tool_call_id": "call_1"}]
outputs = [{"tool_name": "weather", "content": "sunny", "tool_call_id": "call_1"}]
write("automagik", "plain-tools", "By the agent's number, in a session that is there already, with tools; the usage is absent.", FROM, exchange(
    send("/api/v1/agent/7/run?x-api-key=none", {"message_content": "E o tempo?", "session_id": SESSION}, {
        "message": "Sol.", "session_id": SESSION, "success": True, "tool_calls": calls, "tool_outputs": outputs}),
    RUN, talk("E o tempo?", "Sol.", session=SESSION, agent="7", tool_calls=calls, tool_outputs=outputs)))

write("automagik", "plain-without-session", "Neither side knows an id: the name is the session.", FROM, exchange(
    send("/api/v1/agent/simple/run", ASKED, {"message": "Olá!", "session_id": None, "success": True}), RUN,
    talk("Buenas", "Olá!", session="teste", user=USER, agent="simple", channel="automagik-agent")))

write("automagik", "plain-not-successful", "Its model is down: 200, an apology and success false. No episode.", FROM, exchange(
    send("/api/v1/agent/simple/run", ASKED, {**ANSWER, "message": "I apologize, but I encountered an error.", "success": False}), RUN, None))

for status, body in ((404, {"detail": "Agent 'nobody' not found"}), (500, {"error": "Error running agent: boom"})):
    write("automagik", f"plain-{status}", "An error: no episode.", FROM, exchange(send("/api/v1/agent/nobody/run", ASKED, body, status), RUN, None))


# Runs that are started, and asked for later.

STARTED = {"run_id": RUN_ID, "status": "pending", "message": "Agent simple run started", "agent_name": "simple"}


def status(state, result=None, **progress):
    return {"run_id": RUN_ID, "status": state, "agent_name": "simple", "created_at": "2026-01-01T00:00:00", "started_at": None, "completed_at": None,
            "result": result, "error": None, "progress": {"message_count": 2, "stream_available": False, "stream_file_path": None, **progress}}


def start(asked=ASKED):
    return exchange(send("/api/v1/agent/simple/run/async", asked, STARTED), ASYNC, None, STABLE, preset="automagik-async")


def poll(answer, episode=None):
    return exchange(send(f"/api/v1/run/{RUN_ID}/status", None, answer), STATUS, episode, STABLE, preset="automagik-status")


DONE = talk("Buenas", "Olá, Ana!", session="teste", user=USER, agent="simple", channel="automagik-agent", run_id=RUN_ID)
write("automagik-async", "joined", "Started, asked for in vain, answered, though the status says that it still runs, and asked for again.", FROM,
      start(), poll(status("pending")), poll(status("running", "Olá, Ana!"), DONE), poll(status("running", "Olá, Ana!")))

live = {"real_time": True, "cost_usd": 0.01, "turns": 1}
write("automagik-async", "joined-in-progress", "While a coding agent works, the result is only the last thing that it said.", FROM,
      start(), poll(status("running", "Let me look.", completed=False, **live)),
      poll(status("completed", "Olá, Ana!", completed=True, **{**live, "cost_usd": 0.02, "turns": 2}),
           {**DONE, "metadata": {**DONE["metadata"], "cost_usd": 0.02, "turns": 2}}))

nameless = {"message_content": "Buenas"}
write("automagik-async", "joined-without-session", "Nobody names a session: the run is one of its own.", FROM, start(nameless),
      poll(status("running", "Olá!"), talk("Buenas", "Olá!", session=RUN_ID, agent="simple", run_id=RUN_ID)))
