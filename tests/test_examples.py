"""The examples that reach out, run as a person would, against stand-ins that answer as the real services do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest

from llm import providers

ROOT = Path(__file__).resolve().parents[1]

LONDON = {"id": 2643743, "name": "London", "latitude": 51.50853, "longitude": -0.12574, "timezone": "Europe/London"}
FORECAST = {
    "timezone": "Europe/London",
    "daily_units": {"time": "iso8601", "temperature_2m_max": "°C", "precipitation_sum": "mm"},
    "daily": {
        "time": ["2026-11-23", "2026-11-24", "2026-11-25"],
        "temperature_2m_max": [9.4, 7.1, 11.0],
        "temperature_2m_min": [4.2, 1.3, 6.6],
        "precipitation_sum": [0.0, 6.3, 0.4],
        "precipitation_probability_max": [5, 95, 30],
        "wind_speed_10m_max": [14.8, 33.1, 19.0],
    },
}
AIR = {"current_units": {"pm2_5": "μg/m³"}, "current": {"time": "2026-11-23T02:00", "european_aqi": 21, "pm2_5": 6.1}}


class OpenMeteo(ThreadingHTTPServer):
    """A stand-in for the three services of Open-Meteo; it answers 400 to what the real ones would not understand."""

    daemon_threads = True

    def __init__(self, *, air_is_down: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.air_is_down = air_is_down
        self.asked: list[tuple[str, dict[str, list[str]]]] = []

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def answer(self, path: str, query: dict[str, list[str]]) -> tuple[int, object]:
        self.asked.append((path, query))
        if path == "/v1/search":
            found = [LONDON] if query.get("name") == ["London"] else []
            return 200, {"results": found, "generationtime_ms": 0.6}
        if query.get("latitude") != ["51.50853"] or query.get("longitude") != ["-0.12574"]:
            return 400, {"error": True, "reason": "Latitude must be in range of -90 to 90°."}
        if path == "/v1/forecast" and query.get("timezone") == ["Europe/London"]:
            return 200, FORECAST
        if path == "/v1/air-quality":
            return (503, {"error": True, "reason": "down"}) if self.air_is_down else (200, AIR)
        return 404, {"error": True, "reason": "Not Found"}


class _Handler(BaseHTTPRequestHandler):
    server: OpenMeteo

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        status, body = self.server.answer(parts.path, parse_qs(parts.query))
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(params=[False, True], ids=["all-services-up", "air-quality-down"])
def open_meteo(request: pytest.FixtureRequest) -> Iterator[OpenMeteo]:
    with OpenMeteo(air_is_down=request.param) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_weather_of_london_comes_through_http_request_inference_and_synthesis(
    open_meteo: OpenMeteo, tmp_path: Path
) -> None:
    plan = (ROOT / "examples" / "london-weather.json").read_text(encoding="utf-8")
    for service in ("geocoding-api", "air-quality-api", "api"):
        assert f"https://{service}.open-meteo.com" in plan
        plan = plan.replace(f"https://{service}.open-meteo.com", f"http://{open_meteo.place}")
    (tmp_path / "plan.json").write_text(plan, encoding="utf-8")

    with providers.serving(providers.PROTOCOLS["openai"]) as model:
        model.script = [providers.says("Tuesday is wet."), providers.says("Pack ", "an umbrella.")]
        done = dagbok(
            tmp_path, "run", "plan.json", "--database", "sqlite:///diary.db", "--model", "openai:gpt-5",
            DAGBOK_EGRESS_ALLOW=open_meteo.place, OPENAI_BASE_URL=model.url, OPENAI_API_KEY=providers.KEY,
            DAGBOK_RETRY_BACKOFF_S="0.01",
        )  # fmt: skip

    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "Pack an umbrella."
    assert [path for path, _ in open_meteo.asked[:1]] == ["/v1/search"]
    tries = 3 if open_meteo.air_is_down else 1
    assert sorted(path for path, _ in open_meteo.asked[1:]) == ["/v1/air-quality"] * tries + ["/v1/forecast"]
    judged, told = (json.dumps(request.body) for request in model.requests)
    assert "precipitation_probability_max" in judged, "the model is given the forecast"
    assert "Tuesday is wet." in told
    assert ("european_aqi" in judged) is not open_meteo.air_is_down
    assert (" skipped " in done.stderr) is open_meteo.air_is_down
    assert "$0.00" in done.stderr, "what it cost is told"


def test_the_guard_keeps_the_same_tool_from_a_machine_of_its_own_network(open_meteo: OpenMeteo, tmp_path: Path) -> None:
    params = {"url": f"http://{open_meteo.place}/v1/search"}
    plan = {
        "original_request": "What is inside?",
        "intent": {"primary": "Look"},
        "sub_tasks": [{"id": 1, "tool_or_prompt": {"name": "http_request", "params": params}}],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    done = dagbok(tmp_path, "run", "plan.json")
    assert done.returncode == 1
    assert "refused_address" in done.stderr
    assert f"DAGBOK_EGRESS_ALLOW={open_meteo.place}" in done.stderr
    assert open_meteo.asked == []


def dagbok(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a person would, with nothing else in its environment."""
    env = {"PATH": "", "COLUMNS": "300", "PYTHONPATH": os.environ.get("PYTHONPATH", ""), **environment}
    command = [sys.executable, "-m", "dagbok", *arguments]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
