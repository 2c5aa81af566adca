"""Progress bars for whatever takes over two seconds; quiet where `TQDM_DISABLE` is set, as when a book is built."""

import os
from functools import partial

from tqdm import auto

# The notebook's bar does not read the variable by itself, and would leave a dead widget on the built page.
tqdm = partial(auto.tqdm, delay=2, leave=False, disable=bool(os.environ.get("TQDM_DISABLE")))
