"""Copies every image of one store to another, whole or not at all, and says which could not be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

from services.shared.errors import ConfigurationError, IntegrityError, NotFound
from services.shared.ports.image_store import ImageStore


class ListedStore(ImageStore, Protocol):
    """An image store that can say what it holds."""

    def names(self) -> Iterator[str]:
        """The SHA-256 of everything that is stored. Raises DependencyUnavailable."""
        ...


@dataclass
class Copied:
    """What one run did. `damaged` could not be copied: in no version are they what their names say."""

    copied: int = 0
    there: int = 0
    pruned: int = 0
    damaged: list[str] = field(default_factory=list)


def copy_images(source: ListedStore, target: ListedStore, *, prune: bool = False, heal: bool = False) -> Copied:
    """Copy what the target lacks; broken off, the next run goes on. Every image is checked when it is read.

    `prune` also removes from the target what the source has no more, so that a copy does not keep what was erased.
    `heal` puts also what the target says it has, which changes nothing where that is whole.
    Raises ConfigurationError where `prune` would empty the target, DependencyUnavailable.
    """
    done, held = Copied(), set[str]()
    for name in source.names():
        held.add(name)
        if not heal and target.has(name):
            done.there += 1
            continue
        try:
            target.put(source.get(name))
            done.copied += 1
        except NotFound:
            held.discard(name)  # erased since it was listed
        except IntegrityError:
            done.damaged.append(name)
    if prune:
        _prune(source, target, held, done)
    return done


def _prune(source: ListedStore, target: ListedStore, held: set[str], done: Copied) -> None:
    for name in target.names():
        if not held:
            raise ConfigurationError(
                "The store is empty and its copy is not; nothing was removed.",
                advice="See that the settings name the right store; to put images back, copy the other way.",
            )
        if name not in held and not source.has(name):
            target.remove(name)
            done.pruned += 1
