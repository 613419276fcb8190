"""A real JupyterLab 4 or Notebook 7 on loopback, and a handle on a notebook that is open in a browser page.

How a test uses it (the fixtures are in ``conftest.py``; mark the file ``pytestmark = pytest.mark.browser``)::

    def test_something(notebook: NotebookPage) -> None:          # runs in Lab and in Notebook 7
        notebook.set_cells(["1 + 1", "%load_ext vlm_nb"])         # replaces the notebook's cells
        notebook.run(0)                                           # waits for the cell; wait=False does not
        assert notebook.outputs(0)[0]["data"]["text/plain"] == "2"
        notebook.output(0).get_by_text("2")                       # a Playwright locator on what is shown
        notebook.page.screenshot(path=...)                        # ``page`` is Playwright's own

Servers have a folder, settings and runtime files of their own (nothing of the user's is read or written), a
random port on 127.0.0.1, a token, and expose ``window.jupyterapp``, through which the handle runs commands.
``notebook.console_errors`` and ``notebook.foreign_requests`` collect what must stay empty.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

App = Literal["lab", "notebook"]
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
START_SECONDS = 90
NOTEBOOK_SECONDS = 60_000
_SETTINGS = {
    "@jupyterlab/apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyterlab/docmanager-extension/plugin": {"autosave": False},
}


def chromium_path() -> str | None:
    """The browser to drive: ``VLM_NB_CHROMIUM``, or the first Chromium on the path."""
    import shutil

    found = (shutil.which(name) for name in CHROMIUM_NAMES)
    return os.environ.get("VLM_NB_CHROMIUM") or next((path for path in found if path), None)


@dataclass(frozen=True, slots=True)
class JupyterServer:
    """A running server. ``root`` is the folder that it serves."""

    app: App
    root: Path
    base_url: str
    token: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def add_kernel(self, name: str, packages: Path) -> None:
        """Add a kernel that finds the packages of that folder before the installed ones."""
        folder = self.root.parent / "data" / "kernels" / name
        folder.mkdir(parents=True, exist_ok=True)
        path = os.pathsep.join((str(packages), str(Path.cwd()), os.environ.get("PYTHONPATH", "")))
        spec = {
            "argv": [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
            "display_name": name,
            "language": "python",
            "env": {"PYTHONPATH": path},
        }
        (folder / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")

    def url(self, name: str) -> str:
        """The address at which the notebook ``name`` opens, in a JupyterLab workspace of its own.

        A shared workspace would hand the layout of one page (a sidebar as wide as a narrow window) to the
        next.
        """
        place = f"doc/workspaces/{Path(name).stem}/tree" if self.app == "lab" else "notebooks"
        return f"{self.base_url}{place}/{name}?token={self.token}"


@contextlib.contextmanager
def jupyter_server(app: App, folder: Path, env: dict[str, str] | None = None) -> Iterator[JupyterServer]:
    """Start a server in ``folder`` (made if missing) and stop it, with its kernels, at the end."""
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    process, token = _start(app, folder, root, env or {})
    try:
        yield JupyterServer(app, root, _address(process, folder), token, process)
    finally:
        _stop(process)


def _start(app: App, folder: Path, root: Path, env: dict[str, str]) -> tuple[subprocess.Popen[bytes], str]:
    token = secrets.token_hex(16)
    options = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": "0",
        "ServerApp.open_browser": "False",
        "ServerApp.root_dir": str(root),
        "ServerApp.allow_root": "True",
        "IdentityProvider.token": token,
        "LabApp.expose_app_in_browser": "True",
        "JupyterNotebookApp.expose_app_in_browser": "True",
        "LabApp.extension_manager": "readonly",
        "LabApp.user_settings_dir": str(_settings(folder)),
        "LabApp.workspaces_dir": str(folder / "workspaces"),
        "JupyterNotebookApp.user_settings_dir": str(_settings(folder)),
        "JupyterNotebookApp.workspaces_dir": str(folder / "workspaces"),
    }
    command = [sys.executable, "-m", "jupyterlab" if app == "lab" else "notebook"]
    command += [f"--{name}={value}" for name, value in options.items()]
    with (folder / "server.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=_environment(folder, env), cwd=root, start_new_session=True
        )
    return process, token


def _settings(folder: Path) -> Path:
    base = folder / "settings"
    for name, values in _SETTINGS.items():
        path = base / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")
    return base


def _environment(folder: Path, env: dict[str, str]) -> dict[str, str]:
    own = {
        "HOME": str(folder),
        "IPYTHONDIR": str(folder / "ipython"),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "HF_HUB_OFFLINE": "1",
        "VLM_NB_CACHE_DIR": str(folder / "cache"),
        "XDG_CONFIG_HOME": str(folder / "xdg"),
        "PYTHONPATH": os.pathsep.join(filter(None, (str(Path.cwd()), os.environ.get("PYTHONPATH")))),
    }
    return {**os.environ, **own, **env}


def _address(process: subprocess.Popen[bytes], folder: Path) -> str:
    """Wait for the server's own runtime file, which names its port."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        for path in (folder / "runtime").glob(f"jpserver-{process.pid}.json"):
            with contextlib.suppress(ValueError, KeyError):
                info = json.loads(path.read_text(encoding="utf-8"))
                return f"http://127.0.0.1:{info['port']}{info['base_url']}"
        time.sleep(0.1)
    log = (folder / "server.log").read_text(encoding="utf-8", errors="replace")
    raise RuntimeError(f"the Jupyter server did not start:\n{log[-3000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


_PANEL = "const panel = window.jupyterapp.shell.currentWidget; const book = panel.content;"
_READY = """() => {
  const panel = window.jupyterapp?.shell?.currentWidget;
  const kernel = panel?.sessionContext?.session?.kernel;
  return !!(panel?.content?.model && kernel && kernel.status === "idle" && panel.sessionContext.isReady);
}"""

_CLOSE_SIDEBARS = """
  await window.jupyterapp.restored;
  window.jupyterapp.shell.collapseLeft();
  window.jupyterapp.shell.collapseRight();
"""


@dataclass
class NotebookPage:
    """A notebook open in a page of JupyterLab or Notebook 7. Cells are counted from 0."""

    page: Page
    server: JupyterServer
    name: str
    console_errors: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)

    @classmethod
    def open(
        cls, page: Page, server: JupyterServer, cells: Sequence[str] = ("",), kernel: str = "python3"
    ) -> NotebookPage:
        """Write a new notebook with ``cells`` into the server's folder and open it; waits for the kernel."""
        name = f"test-{secrets.token_hex(4)}.ipynb"
        (server.root / name).write_text(json.dumps(_notebook(cells, kernel)), encoding="utf-8")
        made = cls(page, server, name)
        page.on("console", made._on_console)
        page.on("pageerror", lambda error: made.console_errors.append(str(error)))
        page.on("request", made._on_request)
        page.goto(server.url(name))
        made.wait_ready()
        made.console_errors.clear()  # Notebook 7 logs errors of its own while it starts
        return made

    def _on_console(self, message: Any) -> None:
        if message.type == "error":
            self.console_errors.append(f"{message.text} ({message.location.get('url', '')})")

    def _on_request(self, request: Any) -> None:
        local = (self.server.base_url, self.server.base_url.replace("http", "ws", 1), "blob:", "data:")
        if not request.url.startswith(local):
            self.foreign_requests.append(request.url)

    def wait_ready(self) -> None:
        """Wait until the notebook is open, its kernel idle and its sidebars closed."""
        self.page.wait_for_function(_READY, timeout=NOTEBOOK_SECONDS)
        self.evaluate(_CLOSE_SIDEBARS)

    def evaluate(self, script: str, argument: Any = None) -> Any:
        """Run JavaScript statements with ``panel``, ``book`` and ``arg`` in scope; may ``return``, await."""
        return self.page.evaluate(f"async (arg) => {{ {_PANEL} {script} }}", argument)

    def command(self, name: str, arguments: dict[str, Any] | None = None) -> None:
        """Run a JupyterLab command, such as ``docmanager:save``, and wait for it."""
        self.evaluate("await window.jupyterapp.commands.execute(arg[0], arg[1]);", [name, arguments or {}])

    def set_cells(self, cells: Sequence[str]) -> None:
        """Replace all cells by code cells with these sources; the kernel keeps its state."""
        self.evaluate(
            "const shared = book.model.sharedModel;"
            "shared.insertCells(0, arg.map(source => ({cell_type: 'code', source, metadata: {}})));"
            "shared.deleteCellRange(arg.length, shared.cells.length);"
            "book.activeCellIndex = 0;",
            list(cells),
        )

    def run(self, index: int, *, wait: bool = True) -> None:
        """Run one cell. With ``wait`` returns when it has finished (and its outputs are in the model)."""
        start = "book.deselectAll(); book.activeCellIndex = arg;"
        run = "window.jupyterapp.commands.execute('notebook:run-cell')"
        self.evaluate(f"{start} await {run};" if wait else f"{start} {run};", index)

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """The outputs of a cell, as nbformat has them."""
        found: list[dict[str, Any]] = self.evaluate("return book.widgets[arg].model.outputs.toJSON();", index)
        return found

    def output(self, index: int) -> Locator:
        """The rendered output area of a cell."""
        return self.page.locator(".jp-Cell").nth(index).locator(".jp-Cell-outputWrapper")

    def sources(self) -> list[str]:
        """The sources of all cells."""
        found: list[str] = self.evaluate("return book.model.sharedModel.cells.map(cell => cell.source);")
        return found

    def python(self, code: str) -> str:
        """Run code in the kernel outside the cells and return what it printed; errors are raised."""
        reply = self.evaluate(_EXECUTE, code)
        if reply["error"]:
            raise RuntimeError(reply["error"])
        return str(reply["text"])

    def theme(self, name: str) -> None:
        """Switch to "JupyterLab Light", "JupyterLab Dark" or "JupyterLab Dark High Contrast"."""
        self.command("apputils:change-theme", {"theme": name})
        self.page.wait_for_function("name => document.body.dataset.jpThemeName === name", arg=name)

    def restart_kernel(self) -> None:
        """Restart the kernel without asking, and wait until it is idle."""
        self.evaluate("await panel.sessionContext.session.kernel.restart();")
        self.wait_ready()

    def interrupt(self) -> None:
        """Interrupt the running cell."""
        self.evaluate("await panel.sessionContext.session.kernel.interrupt();")

    def save(self) -> dict[str, Any]:
        """Save the notebook and return what is in the file."""
        self.command("docmanager:save")
        saved: dict[str, Any] = json.loads((self.server.root / self.name).read_text(encoding="utf-8"))
        return saved

    def close(self) -> None:
        """Shut the notebook's kernel down (the page closes with its context)."""
        self.evaluate("await panel.sessionContext.shutdown();")


_EXECUTE = """
  const future = panel.sessionContext.session.kernel.requestExecute(
    {code: arg, store_history: false, silent: false, stop_on_error: false});
  let text = "", error = null;
  future.onIOPub = message => {
    if (message.header.msg_type === "stream") text += message.content.text;
    if (message.header.msg_type === "error") error = message.content.ename + ": " + message.content.evalue;
  };
  await future.done;
  return {text, error};
"""


def _notebook(cells: Sequence[str], kernel: str) -> dict[str, Any]:
    spec = {"name": kernel, "display_name": kernel, "language": "python"}
    made = [
        {
            "cell_type": "code",
            "id": f"cell-{i}",
            "metadata": {},
            "source": source,
            "outputs": [],
            "execution_count": None,
        }
        for i, source in enumerate(cells)
    ]
    return {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
