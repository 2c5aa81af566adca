"""The bar stays away from short work and from a book that is being built, in a notebook as well."""

import os
import subprocess
import sys

CODE = """
import tqdm.auto, tqdm.notebook
shown = []
tqdm.notebook.display = lambda *_: shown.append(1)
tqdm.auto.tqdm = tqdm.notebook.tqdm
from lfx_utils.progress import tqdm as bar
for _ in bar(range(3), {options}):
    pass
print(len(shown))
"""


def bars(options: str, **environment) -> int:
    out = subprocess.run([sys.executable, "-c", CODE.format(options=options)], capture_output=True, text=True,
                         env=os.environ | environment)  # fmt: skip
    assert out.returncode == 0, out.stderr
    return int(out.stdout.split()[-1])


def test_short_work_shows_no_bar():
    assert bars("desc='short'") == 0


def test_a_bar_shows_unless_the_environment_says_no():
    assert bars("delay=0", TQDM_DISABLE="") == 1
    assert bars("delay=0", TQDM_DISABLE="1") == 0
