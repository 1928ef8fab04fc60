"""Keeping what a player has chosen: settings and bindings as two YAML files in the system's place for them.

A file that cannot be read is moved aside under a name that no file has yet, the defaults are used, and a sentence says
so. Where even that fails nothing is written over it: what is chosen then lasts until the program ends.

Does not know what a setting does or how it is shown.
"""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from app.settings import Settings, config_folder, load_settings, save_settings, state_folder
from controls.bindings import DEFAULT_BINDINGS, Bindings, load_bindings, save_bindings
from controls.errors import UserError


class Keeper:
    """`settings` and `bindings` as they are on disk; `notices` are sentences for the player about what went wrong.

    `reserved` are the window's own keys, which no binding may use.
    """

    def __init__(self, folder: Path | None = None, reserved: Collection[str] = (), older: Path | None = None) -> None:
        folder = folder or config_folder()
        self.reserved = reserved
        self.notices: list[str] = []
        self._locked: set[Path] = set()
        self._settings_path = folder / "settings.yaml"
        self._bindings_path = folder / "bindings.yaml"
        self.settings = self._load_settings(older or state_folder() / "settings.yaml")
        self.bindings = self._load_bindings()

    def _load_settings(self, older: Path) -> Settings:
        # an older version kept them elsewhere: what lies there is read, and stays
        if not os.path.lexists(self._settings_path) and os.path.lexists(older):
            try:
                return load_settings(older)
            except UserError as error:
                self.notices.append(f"{error} It is left as it is; the defaults are used.")
                return Settings()
        try:
            return load_settings(self._settings_path)
        except UserError as error:
            self._set_aside(self._settings_path, error)
            return Settings()

    def _load_bindings(self) -> Bindings:
        if not os.path.lexists(self._bindings_path):
            return load_bindings(reserved=self.reserved)
        try:
            return load_bindings(self._bindings_path, reserved=self.reserved)
        except UserError as error:
            self._set_aside(self._bindings_path, error)
            return load_bindings(reserved=self.reserved)

    def _set_aside(self, path: Path, error: UserError) -> None:
        number = 1
        while os.path.lexists(aside := path.with_name(f"{path.stem}.bad-{number}{path.suffix}")):
            number += 1
        try:
            os.rename(path, aside)
        except OSError as problem:
            self._locked.add(path)
            self.notices.append(
                f"{error} It cannot be moved aside ({problem.strerror}), so the defaults are used and nothing is saved."
            )
        else:
            self.notices.append(f"{error} The defaults are used; the file is kept as {aside.name}.")

    def change(self, name: str, value: Any) -> bool:
        """Set one setting and write the file; False when it could not be written."""
        self.settings = replace(self.settings, **{name: value})
        return self._settings_path not in self._locked and save_settings(self.settings, self._settings_path)

    def rebind(self, bindings: Bindings) -> bool:
        """Use other bindings and write the file; False when it could not be written."""
        self.bindings = bindings
        if self._bindings_path in self._locked:
            return False
        try:
            save_bindings(bindings, self._bindings_path)
        except UserError:
            return False
        return True

    def default_bindings(self) -> Bindings:
        """Those that the program comes with."""
        return load_bindings(DEFAULT_BINDINGS, reserved=self.reserved)
