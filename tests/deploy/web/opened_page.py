"""An exported page in a browser, and what a user does with it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

MOST_MS = 120_000  # for a segmentation, on a busy machine
DONE = "#save:not([hidden])"
WRONG = "#status.wrong"


class OpenedPage:
    """Attributes:
    page: Playwright's.
    requests: Addresses that were asked for, but for the page itself and what it made.
    errors: Of its scripts.
    """

    def __init__(
        self, browser, path: Path, *, width: int = 1200, cores: int | None = None, script: str = "", ready: bool = True
    ) -> None:
        """script: run before the page's own. ready: wait until the page takes files."""
        self.context = browser.new_context(viewport={"width": width, "height": 800}, accept_downloads=True)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page.on("request", lambda request: self._note(request.url, path))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        if cores:
            self.page.add_init_script(
                f"Object.defineProperty(navigator, 'hardwareConcurrency', {{get: () => {cores}}})"
            )
        self.page.add_init_script(script)
        self.page.goto(path.as_uri())
        if not ready:
            return
        self.page.wait_for_selector("#files:not([disabled])", state="attached", timeout=MOST_MS)

    def __enter__(self) -> OpenedPage:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def _note(self, url: str, path: Path) -> None:
        if url != path.as_uri() and not url.startswith("blob:"):
            self.requests.append(url)

    @property
    def status(self) -> str:
        return self.page.inner_text("#status")

    def give(self, files: Sequence[Path]) -> None:
        """Choose files by the button."""
        self.page.set_input_files("#files", list(files))

    def drop(self, path: Path) -> None:
        """Drop a file on the page."""
        self.page.evaluate(
            """([name, content]) => {
                const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
                const files = new DataTransfer();
                files.items.add(new File([bytes], name));
                const init = { dataTransfer: files, bubbles: true, cancelable: true };
                document.body.dispatchEvent(new DragEvent("drop", init));
            }""",
            [path.name, base64.b64encode(path.read_bytes()).decode()],
        )

    def segment(self, files: Sequence[Path]) -> None:
        """Choose files and wait until they are segmented."""
        # What an image before has left; to wait for the signs of work instead might miss them on a busy machine.
        self.page.evaluate("() => (document.getElementById('save').hidden = true)")
        self.give(files)
        self.page.wait_for_selector(f"{DONE}, {WRONG}", timeout=MOST_MS)
        assert not self.page.query_selector(WRONG), self.status
        assert self.errors == []

    def refused(self, files: Sequence[Path]) -> str:
        """Choose files that cannot be used; what the page says."""
        self.page.evaluate("() => document.getElementById('status').classList.remove('wrong')")
        self.give(files)
        self.page.wait_for_selector(WRONG, timeout=MOST_MS)
        assert self.errors == []
        return self.status

    def is_idle(self) -> bool:
        """Whether all workers end, of which the browser tells a little later."""
        for _ in range(100):
            if not self.page.workers:
                return True
            self.page.wait_for_timeout(100)
        return False

    def saved(self, button: str, folder: Path) -> Path:
        """What a button saves."""
        with self.page.expect_download() as download:
            self.page.click(f"#{button}")
        path = folder / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def table(self) -> list[list[str]]:
        """Cells of the table of labels."""
        return [
            [cell.inner_text() for cell in row.query_selector_all("th, td")]
            for row in self.page.query_selector_all("#rows tr")
        ]
