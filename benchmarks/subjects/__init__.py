"""Who is measured: each subject's program, interpreter and database, and what it may be compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: dagbok; a peer that is durable; one that is told beside them, and never as the best; a limit that no engine reaches.
Kind = Literal["dagbok", "peer", "aside", "limit"]
Store = Literal["sqlite", "postgresql", ""]

LIBRARY = ("W1", "W2", "W3", "W4", "W5", "W6")
SERVED = ("W7",)
#: A peer of 1,000 steps/s would take W6 more time than all others together.
PEER = ("W1", "W2", "W3", "W4", "W5")


@dataclass(frozen=True)
class Subject:
    """One line of the tables."""

    name: str
    kind: Kind
    store: Store
    module: str  #: of `benchmarks.subjects`
    workloads: tuple[str, ...]
    environment: str = ""  #: of `benchmarks/environments`; "": the interpreter of the project
    variant: str = ""  #: what the program is told

    def module_for(self, workload: str) -> str:
        """Return the program: W7 has its own."""
        return "dagbok_server" if workload in SERVED else self.module


SUBJECTS = (
    Subject("dagbok-sqlite-full", "dagbok", "sqlite", "dagbok_library", (*LIBRARY, *SERVED)),
    Subject("dagbok-sqlite-normal", "dagbok", "sqlite", "dagbok_library", (*LIBRARY[:4], *SERVED), variant="NORMAL"),
    Subject("dagbok-postgresql", "dagbok", "postgresql", "dagbok_library", (*LIBRARY, *SERVED)),
    Subject("dbos-sqlite", "peer", "sqlite", "dbos_steps", PEER, "dbos"),
    Subject("dbos-postgresql", "peer", "postgresql", "dbos_steps", PEER, "dbos"),
    Subject("langgraph-sqlite", "peer", "sqlite", "langgraph_nodes", PEER, "langgraph", "sync"),
    Subject("langgraph-postgresql", "peer", "postgresql", "langgraph_nodes", PEER, "langgraph", "sync"),
    Subject("langgraph-sqlite-async", "aside", "sqlite", "langgraph_nodes", PEER[:4], "langgraph", "async"),
    Subject("langgraph-postgresql-async", "aside", "postgresql", "langgraph_nodes", PEER[:4], "langgraph", "async"),
    Subject("prefect-sqlite", "peer", "sqlite", "prefect_flows", PEER[:4], "prefect"),
    Subject("asyncio", "limit", "", "bare_asyncio", LIBRARY),
    Subject("raw-sqlite", "limit", "sqlite", "raw_rows", ("W1", "W2", "W3", "W6")),
    Subject("raw-postgresql", "limit", "postgresql", "raw_rows", ("W1", "W2", "W3", "W6")),
)

BY_NAME = {subject.name: subject for subject in SUBJECTS}
