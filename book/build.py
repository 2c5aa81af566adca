"""Build the book: execute the notebooks whose inputs changed, in parallel, then typeset them.

    python book/build.py [--profile quick] [--seed 0] [--jobs N] [--only 02_*] [--no-html]

Executed notebooks are kept in `_build/notebooks/PROFILE`, each with a stamp that says what it was made from and
that is written last. An interrupted build therefore resumes, and nothing half written ever counts. The HTML is
built in a folder of its own and moved to `_build/html` when it is whole.
"""

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from fnmatch import fnmatch
from pathlib import Path

import changes
import companions
import drawings
import pages
import psutil
import yaml
from chapter import BUILD, ROOT, Chapter, plain, write
from generated import generated

PROFILES = ("smoke", "quick", "paper")
TYPESETTERS = ("jupyter-book", "sphinx", "sphinx-book-theme", "myst-nb")


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def contents() -> dict:
    """Return the table of contents."""
    return yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))


def chapters() -> list[str]:
    """Return the names of the notebooks in the table of contents, in its order."""
    toc = contents()
    files = [entry["file"] for part in toc.get("parts", [toc]) for entry in part["chapters"]]
    return [Path(file).name for file in files if file.startswith("notebooks/")]


def stop(processes: set) -> None:
    """Kill processes and all below them: papermill, politely asked, saves half a notebook and reports success."""
    for process in list(processes):
        try:
            parent = psutil.Process(process.pid)
            parent.suspend()  # or a kernel that is just starting would outlive it
            family = [*parent.children(recursive=True), parent]
        except psutil.NoSuchProcess:
            continue
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                pass


def execute(todo: list[Chapter], jobs: int, threads: int) -> dict[str, str]:
    """Execute chapters in parallel, the longest first; return what went wrong, by chapter."""
    environment = os.environ | {
        "LFX_OUT": str(BUILD / "results"),
        "LFX_THREADS": str(threads),
        "OMP_NUM_THREADS": str(threads),
        # Threads that wait for each other give way; spinning, they took fifteen times as long beside busy neighbours.
        "OMP_WAIT_POLICY": "passive",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel `python3` of this environment, not the user's own
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        "TQDM_DISABLE": "1",
        "PYTHONUTF8": "1",  # what the kernels print is read as UTF-8, whatever the locale
    }
    environment.pop("MPLBACKEND", None)  # it would keep figures out of the notebooks
    if environment.get("LFX_DATA"):
        environment["LFX_DATA"] = str(Path(environment["LFX_DATA"]).expanduser().resolve())  # kernels run elsewhere
    todo = sorted(todo, key=lambda chapter: -chapter.past().get("seconds", float("inf")))
    failures, running = {}, set()
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(chapter.execute, environment, running): chapter for chapter in todo}
        try:
            for future in as_completed(waiting):
                chapter = waiting[future]
                if wrong := future.result():
                    failures[chapter.name] = wrong
                print(f"  {chapter.name}: " + ("FAILED" if wrong else f"{chapter.past()['seconds']} s"), flush=True)
        except KeyboardInterrupt:
            pool.shutdown(wait=False, cancel_futures=True)
            while not all(future.done() for future in waiting):
                stop(running)
                time.sleep(0.1)
            for future, chapter in waiting.items():
                if future.cancelled() or future.result():
                    chapter.running.unlink(missing_ok=True)
                    chapter.failed.unlink(missing_ok=True)
            raise
    return failures


def typeset(everything: list[Chapter]) -> str:
    """Assemble the Sphinx source and build the HTML if it changed; return what went wrong, or nothing."""
    source, output, final = BUILD / "source", BUILD / "sphinx", BUILD / "html"
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(ROOT / "book", source / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    write(source / "_config.yml", yaml.safe_dump(configuration(), allow_unicode=True, sort_keys=False))
    shown = {}
    for chapter in everything:
        shown |= companions.split(chapter.name, json.loads(chapter.page()))
    write(source / "_toc.yml", yaml.safe_dump(companions.contents(contents(), shown), sort_keys=False))
    for name, page in shown.items():
        for cell in page["cells"]:
            if cell["cell_type"] == "markdown":
                cell["source"] = drawings.inlined("".join(cell["source"]), ROOT / "book")
        write(source / "notebooks" / f"{name}.ipynb", companions.relinked(json.dumps(page, indent=1), shown))
    for page in (source / "book").glob("*.md"):
        write(page, drawings.inlined(page.read_text(encoding="utf-8"), ROOT / "book"))
    for name, text in generated(everything).items():
        write(source / "book" / "generated" / f"{name}.md", companions.relinked(text, shown))
    for path in (everything[0].records.parent / "scorecard").glob("scorecard.*"):
        shutil.copy(path, source / "book" / "_static")
    if (values := everything[0].records.parent / "values").is_dir():
        shutil.copytree(values, source / "book" / "_static" / "values")
    parts = [changes.digest([source, ROOT / "book" / "pages.py"], ROOT), changes.digest([ROOT / "lfx_utils"], ROOT)]
    parts += [changes.version(name) for name in TYPESETTERS]
    state, mark = hashlib.sha256("".join(parts).encode()).hexdigest(), final / ".made-from"
    if mark.is_file() and mark.read_text(encoding="utf-8") == state:
        return ""
    print("Typesetting ...", flush=True)
    shutil.rmtree(output, ignore_errors=True)
    command = [sys.executable, "-c", "from jupyter_book.cli.main import main; main()", "build", str(source)]
    process = subprocess.Popen(
        [*command, "--path-output", str(output), "-W", "-n", "--keep-going"], cwd=BUILD, encoding="utf-8",
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        log, _ = process.communicate()
    except KeyboardInterrupt:
        stop({process})
        raise
    log = plain(log)
    write(BUILD / "typesetting.log", log)
    if process.returncode:
        wrong = [line for line in log.splitlines() if re.search("WARNING|ERROR|CRITICAL", line)]
        return "\n".join(wrong or log.splitlines()[-15:]).replace(f"{source}/", "")
    made = output / "_build" / "html"
    pages.finish(made)
    for page in made.glob("notebooks/*_audit.html"):  # no notebook of its own: its buttons open the chapter's
        text = page.read_text(encoding="utf-8")
        page.write_text(re.sub(r"(/notebooks/\w+?)_audit\.ipynb", r"\1.ipynb", text), encoding="utf-8")
    (made / mark.name).write_text(state, encoding="utf-8")
    shutil.rmtree(final, ignore_errors=True)
    made.replace(final)
    return ""


def configuration() -> dict:
    """Return `_config.yml` with what follows from the public address: where the pages will lie, and their card."""
    settings = yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))
    owner, name = settings["repository"]["url"].rstrip("/").split("/")[-2:]
    address = f"https://{owner}.github.io/{name}"
    settings["html"]["baseurl"] = f"{address}/"
    settings["sphinx"]["config"]["html_search_scorer"] = str(ROOT / "book" / "search.js")  # Sphinx asks for a full path
    settings["sphinx"]["config"]["myst_html_meta"] = {
        "property=og:title": settings["title"],
        "property=og:type": "website",
        "property=og:image": f"{address}/_static/card.png",
        "name=twitter:card": "summary_large_image",
    }
    return settings


def report(everything: list[Chapter], executed: set[str], failures: dict[str, str], profile: str) -> None:
    """Print what failed and how long each chapter took; keep the times as a table."""
    for name, wrong in failures.items():
        print(f"\n{name} failed {wrong}")
    width = max((len(chapter.name) for chapter in everything), default=0)
    rows = [["chapter", "seconds", "date", "threads"]]
    print(f"\n{'chapter':{width}}  seconds")
    for chapter in everything:
        made = chapter.past()
        if chapter.name in failures:
            see = f": see {chapter.failed.relative_to(ROOT)}" if chapter.failed.is_file() else ""
            seconds, how = "", f"FAILED{see}"
        elif not chapter.fresh():
            seconds, how = "", "not executed"
        else:
            seconds, how = made["seconds"], "executed now" if chapter.name in executed else f"kept, of {made['date']}"
            rows.append([chapter.name, seconds, made["date"], made["threads"]])
        print(f"{chapter.name:{width}}  {seconds:7}  {how}")
    table = BUILD / "results" / profile / "times.csv"
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--profile", default="quick", help=f"one of {', '.join(PROFILES)}")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, help="notebooks executed at once")
    parser.add_argument("--only", nargs="+", default=["*"], metavar="PATTERN", help="execute only these chapters")
    parser.add_argument("--no-html", action="store_true", help="execute, but do not typeset")
    asked = parser.parse_args()
    if asked.profile not in PROFILES:
        sys.exit(f"profile must be one of {', '.join(PROFILES)}, got {asked.profile!r}.")
    if asked.seed < 0:
        sys.exit(f"seed must be a non-negative integer, got {asked.seed}.")
    if asked.jobs is not None and asked.jobs < 1:
        sys.exit(f"jobs must be at least 1, got {asked.jobs}.")
    names = chapters()
    for pattern in asked.only:
        if not any(fnmatch(name, pattern) for name in names):
            sys.exit(f"--only {pattern} matches no chapter; there are {', '.join(names)}.")
    jobs = asked.jobs or max(1, min(cores(), len(names), 4))
    threads = max(1, cores() // jobs)

    everything = [Chapter(name, asked.profile, asked.seed) for name in names]
    wanted = [chapter for chapter in everything if any(fnmatch(chapter.name, pattern) for pattern in asked.only)]
    executed, failures = set(), {}
    for gathers in (False, True):  # what reads the others' records comes after them
        todo = [chapter for chapter in wanted if chapter.gathers == gathers and not chapter.fresh()]
        if todo and not failures:
            print(f"Executing {len(todo)} of {len(names)} chapters at the {asked.profile} profile, {jobs} at once ...")
            sys.stdout.flush()
            failures = execute(todo, jobs, threads)
            executed |= {chapter.name for chapter in todo}
    report(everything, executed, failures, asked.profile)

    if failures:
        failed = f"{len(failures)} of {len(names)} chapters failed"
        print(f"\nNo book was made: {failed}. The others are kept; run again to resume.")
        return 1
    if asked.no_html:
        return 0
    if missing := [chapter.name for chapter in everything if not chapter.fresh()]:
        print(f"\nNo book was made: {', '.join(missing)} not executed yet.")
        return 0
    if wrong := typeset(everything):
        print(f"\nNo book was made: typesetting warned or failed.\n{wrong}\nThe whole log: _build/typesetting.log")
        return 1
    print(f"\nThe book: {BUILD / 'html' / 'index.html'}")
    return 0


if __name__ == "__main__":
    for name in (signal.SIGTERM, signal.SIGINT):  # a shell that starts it in the background has SIGINT ignored
        signal.signal(name, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\nInterrupted; every finished chapter is kept, and the next call resumes.")
