"""Makes the golden exchanges anew: `python3 make.py DIRECTORY`, where environments are made and kept. Needs PyPI, npm and Node 20.

What comes out differs from what was there only where a vendor's SDK or server does: ids and times are replaced by names of their
own. Look at what differs, and at each episode, before it is committed.
"""

import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).parent.resolve()
KEPT = pathlib.Path(sys.argv[1]).resolve()

PYTHON = {
    "requirements.txt": ["openai_cases", "anthropic_cases", "ollama_cases", "dify_cases", "ag_ui_cases", "automagik_cases", "a2a_1_0_cases"],
    "requirements-a2a-0.3.txt": ["a2a_0_3_cases"],
    "requirements-langgraph.txt": ["langgraph_cases"],
}

for requirements, programs in PYTHON.items():
    environment = KEPT / requirements.removesuffix(".txt")
    if not (environment / "complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", environment], check=True)
        subprocess.run([environment / "bin/pip", "install", "--quiet", "--requirement", HERE / requirements], check=True)
        (environment / "complete").touch()
    for program in programs:
        print(program, flush=True)
        subprocess.run([environment / "bin/python", "-B", HERE / f"{program}.py"], check=True)

# Node looks for packages beside a program, and this directory is to stay clean.
node = KEPT / "node/make"
node.mkdir(parents=True, exist_ok=True)
for name in ("package.json", "ai_sdk_cases.mjs"):
    shutil.copy(HERE / name, node / name)
subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent", "--no-package-lock"], cwd=node, check=True)
print("ai_sdk_cases", flush=True)
subprocess.run(["node", "ai_sdk_cases.mjs"], cwd=node, check=True)
for made in (KEPT / "node/ai-sdk").iterdir():
    shutil.copy(made, HERE.parent / "ai-sdk" / made.name)
