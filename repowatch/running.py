"""One repository as it runs: its parts, what the doors get to know of it, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from repowatch import pruning, rewinding
from repowatch.config import RepositoryConfig
from repowatch.joint import Joint
from repowatch.model.figures import Figures
from repowatch.model.publication import Hints, Sizes
from repowatch.pruning import prune_rules
from repowatch.repository.index import Index
from repowatch.repository.updater import POLLING, Updater
from repowatch.repository.watcher import MODES, Watcher
from repowatch.system.clock import SystemClock
from repowatch.system.memory import settle
from repowatch.system.space import space_at
from repowatch.system.systemd import Part
from repowatch.system.threads import Thread
from repowatch.web.served import Served

# Seconds without a look at its inbox, and without a file more that was read, after which an updater hangs.
# Between two looks it waits for 10 s at most; but a package of 12 GB from a disk of 20 MB a second is a turn
# of its own, and nothing tells it from a disk that answers no more.
UPDATER_PATIENCE = 600.0

WATCHER_PATIENCE = 60.0  # seconds that a watcher may be without its threads: after a mount it walks the tree


@dataclass(frozen=True, slots=True)
class Repository:
    """The parts of one repository."""

    config: RepositoryConfig
    index: Index
    updater: Updater
    watcher: Watcher
    thread: Thread
    sizes: Sizes = field(default_factory=Sizes)
    hints: Hints = field(default_factory=Hints)

    @classmethod
    def assemble(cls, config: RepositoryConfig, index: Index, *, failed: Callable[[str], None]) -> Repository:
        updater = Updater(
            index,
            clock=SystemClock(),
            settle=config.settle,
            deadline=config.deadline,
            prune=prune_rules(config),
        )
        watcher = Watcher(index.tree, hint=updater.hint, blind=lambda: updater.rescan(every=POLLING))

        def returned() -> None:
            updater.rescan()
            watcher.restart()

        index.hooks.returned = returned
        index.hooks.rests = settle
        thread = Thread(f"updater {config.name}", updater.run, failed=failed)
        return cls(config, index, updater, watcher, thread)

    def start(self) -> None:
        """The watcher before the first scan, so that nothing falls between."""
        self.watcher.start()
        self.thread.start()

    def stop(self) -> None:
        self.watcher.stop()
        self.updater.stop()
        self.thread.join()
        self.index.close()

    def parts(self) -> list[Part]:
        """What the watchdog feels the pulse of."""
        now = SystemClock().monotonic
        return [
            Part(
                f"the updater of {self.config.name}",
                lambda: (self.updater.rounds, self.index.reading),
                UPDATER_PATIENCE,
            ),
            Part(
                f"the watcher of {self.config.name}",
                lambda: now() if self.watcher.is_alive else None,
                WATCHER_PATIENCE,
            ),
        ]

    def served(self, *, reserve: int | None, others: Callable[[str], Updater | None]) -> Served:
        """What the doors get to know; `others` finds a repository by its name."""
        may_replace = self.config.replace == "allow"
        joint = Joint(self.updater, replace=may_replace, reserve=reserve, others=others)
        return Served(
            name=self.config.name,
            url=self.config.url,
            root=self.index.root,
            staging=self.index.home.open_staging,
            is_local=lambda: self.watcher.mode != "polling",
            reserve=reserve,
            replace=self.config.replace == "allow",
            is_package_name=self.index.tree.is_package_name,
            is_companion=self.index.tree.is_companion,
            examine=self.index.companions.examine,
            may_lead_to=self.index.tree.may_lead_to,
            publication=lambda: self.index.publication,
            metadata_keys=self.index.signing.key_files,
            expect=self.updater.expect,
            admit=self.updater.admit,
            remove=self.updater.remove,
            look=self.updater.look,
            health=self.updater.health,
            status=self.status,
            checksum=self.config.checksum,
            claim=self.index.history.claim,
            retired=self.index.keeping.served,
            batched=joint,
            snapshot=self.index.snapshots.find,
            operations={
                **joint.operations,
                **rewinding.operations(self.updater),
                **pruning.operations(self.updater),
            },
            reports={"batches": self.index.batches.told, **rewinding.reports(self.index.snapshots)},
            when_published=self.when_published,
        )

    def when_published(self, act: Callable[[], None]) -> None:
        """Have a function called after each publication, by the updater's thread."""
        self.index.hooks.published = act

    def figures(self) -> Figures:
        """One repository in the metrics. May wait for its file system."""
        index, tally = self.index, self.index.tally
        publication, mode = index.publication, self.watcher.mode
        return Figures(
            name=self.config.name,
            packages=len(publication.entries) if publication else 0,
            rejected=len(index.rejected),
            duplicates=len(index.duplicates),
            replacements=index.notices.replacements,
            unchecked=index.unchecked,
            batches=len(index.batches),
            pruned=self.updater.pruner.total,
            pruning_paused=self.updater.pruner.paused() is not None,
            retired=(len(index.keeping.retired.names), index.keeping.retired.size),
            snapshots=index.snapshots.counts,
            snapshots_extra=index.snapshots.extra(),
            making=tally.making,
            waiting=tally.waiting,
            failures=tally.failures,
            succeeded_at=tally.succeeded_at,
            is_well=self.updater.health() is None,
            signing_key_expires_at=self.index.signing.expires_at(),
            watcher={each: each == mode for each in MODES},
            overflows=self.watcher.overflows,
            disk=None if index.home.is_away else space_at(index.root),
        )

    def status(self) -> dict[str, Any]:
        """One repository in the JSON status. Times in seconds since 1970, durations in seconds."""
        publication = self.index.publication
        space = space_at(self.index.root)
        done, total = self.index.reading
        rejected = sorted(self.index.rejected.values(), key=lambda each: each.location_href)
        return {
            "name": self.config.name,
            "url": self.config.url,
            "path": self.config.path,
            "profile": self.config.profile,
            "checksum": self.config.checksum,
            "changelogs": self.config.changelogs,
            "packages": len(publication.entries) if publication else 0,
            "size": self.sizes.of(publication) if publication else 0,
            "revision": publication.revision if publication else 0,
            "published_at": publication.published_at if publication else None,
            "publication_seconds": publication.seconds if publication else None,
            "trouble": self.updater.health(),
            "watcher": self.watcher.mode,
            "waiting": self.updater.waiting,
            "uploads": self.updater.uploads,
            "disk_free": space[0] if space else None,
            "reading": {"done": done, "total": total},
            "unchecked": self.index.unchecked,
            "batches": self.index.batches.told(),
            "pruning": self.updater.pruner.status(),
            "signing": self.index.signing.status(),
            "signatures": self.index.keys.status(),
            **self.index.notices.status(
                duplicates=self.index.duplicates, hinted=self.hints.of(publication) if publication else []
            ),
            "companions": [
                asdict(each)
                for each in self.index.companions.tell(publication.entries if publication else {})
            ],
            "snapshots": rewinding.told(self.index.snapshots),
            "rejected": [{"location": each.location_href, "reason": each.reason} for each in rejected],
            "history": [asdict(each) for each in self.index.history.events],
        }


@dataclass(frozen=True, slots=True)
class Running:
    """A repository, and what others know it by for as long as it runs."""

    repository: Repository
    served: Served
    parts: tuple[Part, ...]

    @property
    def config(self) -> RepositoryConfig:
        return self.repository.config

    @property
    def is_published(self) -> bool:
        return self.repository.index.publication is not None

    def start(self) -> None:
        self.repository.start()

    def stop(self) -> None:
        self.repository.stop()
