"""Installation of MuQ for SpeechBrain."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
FRONT_DOOR = (HERE / "muq_plugins/__init__.py").read_text(encoding="utf-8")

EXTRAS = {
    # The site of the documentation, with its API (MIT and ISC). Zensical 0.1 asks for a
    # package that not every index has.
    "docs": [
        "zensical>=0.0.73,<0.1",
        "mkdocstrings-python>=2,<3",
        "griffe-inherited-docstrings>=1.1,<2",
    ],
    # onnxruntime (MIT) rounds weights to 8 bits for --int8.
    "export": ["onnx>=1.19,<2", "onnxscript>=0.7,<1", "onnxruntime>=1.23,<2"],
    "lora": ["peft>=0.18"],
    # Scores of beats, chords and sections (MIT), and the decoder of beats of MARBLE's
    # own protocols (BSD-2-Clause; numpy and scipy alone).
    "marble": ["mir_eval>=0.8.2,<0.9", "madmom-infer>=0.2,<0.3"],
    "parquet": ["pyarrow>=17"],
    # Shards behind http; those on the Hugging Face hub need nothing more, other stores
    # their package of fsspec, such as s3fs.
    "stores": ["aiohttp>=3.9"],
    "tensorboard": ["tensorboard>=2.15"],
    # Older starlette refuses http://[::1].
    "web": ["fastapi>=0.135", "starlette>=1.7", "uvicorn>=0.30"],
}
# The tests cover the optional parts, run the exported graph, and ask the search page as
# a program (httpx2) and as a browser.
TEST = [
    "pytest>=8",
    "pytest-xdist>=3.5",
    "httpx2>=2",
    "pillow>=10",
    "playwright>=1.40",
    # of docs/examples
    "accelerate>=1.10",
    "pytorch-lightning>=2.5",
    *sum(EXTRAS.values(), []),
]


class WithRecipes(build_py):
    """Puts recipes and experiment files, which stand beside the package, into it."""

    def run(self):
        super().run()
        for name in () if self.editable_mode else ("recipes", "hparams"):
            place = Path(self.build_lib, "muq_plugins", name)
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(
                HERE / name, place, ignore=shutil.ignore_patterns("__pycache__")
            )


setup(
    name="muq-plugins",
    version=re.search(r'__version__ = "(.+)"', FRONT_DOOR)[1],
    description="Train, adapt, evaluate and serve music representation models",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The MuQ for SpeechBrain team",
    license="Apache-2.0",
    cmdclass={"build_py": WithRecipes},
    packages=find_packages(include=["muq_plugins*"]),
    package_data={
        "muq_plugins": ["py.typed", "models/*/*.*", "models/*/tokenizer/*.*"],
        "muq_plugins.data.corpus": ["melodies.txt"],
        "muq_plugins.evaluation": ["templates/*"],
        "muq_plugins.inference": ["templates/*"],
    },
    python_requires=">=3.10",
    install_requires=[
        # torchaudio 2.11 is the last release. It works with later torch for the same
        # CUDA version, and `import torchaudio` fails with any other: its wheels on PyPI
        # are for CUDA 13.0, those of torch 2.15 for 13.2.
        "torch>=2.11,<2.15",
        "torchaudio>=2.11,<2.12",
        "speechbrain>=1.1.2,<1.2",
        "hyperpyyaml>=1.2.3",
        "ruamel.yaml>=0.18,<0.19",  # hyperpyyaml 1.2.3 does not work with 0.19
        "transformers>=5.0",  # its folders are not read by 4.x
        "sentencepiece>=0.2",
        "tokenizers>=0.22.2",
        "soundfile>=0.13.1",
        # m4a, aac, wma, webm: wheels of 36 MB with FFmpeg inside (LGPL 3, beside GPL
        # video encoders that are not used). It is imported where a file needs it.
        "av>=16",
        "safetensors>=0.4.5",
        "huggingface_hub>=1.3",
        "fsspec>=2024.2",  # which torch brings
        "filelock>=3.12",
        "packaging>=24",
        "numpy>=1.26",
        "scipy>=1.11.1",
        "tqdm>=4.66",
        "typer>=0.20",  # which reads choices from Literal types
        # reports and probes
        "matplotlib>=3.7",
        "scikit-learn>=1.3",
        "jinja2>=3",
        # the embedded corpus: scores, a soundfont, and processes to render with
        "music21>=9.1,<11",
        "pretty_midi>=0.2.11",
        "joblib>=1.3",
    ],
    # mteb is large and needs Python 3.11: where it is not there, its test is skipped
    extras_require={
        **EXTRAS,
        "mteb": ["mteb[audio]>=2.26"],
        "test": TEST,
        "dev": [*TEST, "pre-commit", "ruff"],
    },
    entry_points={
        "console_scripts": ["muq-plugins = muq_plugins.inference.cli.main:main"]
    },
)
