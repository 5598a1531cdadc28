"""docs/TRAIN.md: its blocks of Python, run one after the other as a user would."""

import os
import re
import subprocess
import sys

from conftest import ROOT


def test_the_page_runs(ours, folder):
    text = (ROOT / "docs" / "TRAIN.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    assert len(blocks) >= 6
    # Workers that are forked have no need of it; it is what a script needs that may be imported by workers.
    (folder / "train.py").write_text("\n".join(blocks))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    environment.update(AWS_ENDPOINT_URL=ours.endpoint, AWS_ACCESS_KEY_ID=ours.keys[0], AWS_SECRET_ACCESS_KEY=ours.keys[1])
    done = subprocess.run([sys.executable, folder / "train.py"], env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stdout + done.stderr
