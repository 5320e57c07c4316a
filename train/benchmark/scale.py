"""Every stage of a run, at a tenth of a real competition's size and at the whole."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from birdkit.log import LOG
from train.benchmark import growth
from train.benchmark.cost import Cost, measured, measured_command
from train.config import recipe as recipes
from train.config.job import Job
from train.config.settings import Recipe
from train.data import dataset as data
from train.data import duplicates, speech
from train.data.batches import Batches
from train.data.waveforms import to_float
from train.rounds import estimate, plan, pseudo_labels
from train.rounds.runner import Runner
from train.synthetic.full_size import RATE_HZ, Size, make_full_size

ROOT = Path(__file__).resolve().parents[2]
SHARES = (0.1, 1.0)
N_BATCHES = 50
DUPLICATES = "duplicates"
# The demo's recipe with a network of 0.5 M parameters, for sounds at a low rate.
TINY = (
    *("models.encoder=test_resnet", "models.weights=none", "models.drop_path_rate=0.0"),
    *(f"frontend.sample_rate={RATE_HZ}", "frontend.n_fft=256", "frontend.hop=256"),
    *("frontend.n_mels=32", f"frontend.fmax_hz={RATE_HZ / 2}", "fit.batch=8", "fit.amp=f32"),
    *("fit.steps_per_epoch=2", "fit.epochs=1", "data.workers=0", "data.duplicates=drop"),
    *("data.speech=cut", "data.fold=-1", "postprocess.stretch_s=60"),
)


@dataclass
class Run:
    """One run of all stages, filled by each of them for those after it."""

    competition: Path
    out: Path
    wheels: Path | None
    recipe: Recipe
    dataset: data.Dataset = field(init=False)

    @property
    def cache(self) -> Path:
        return self.out / "waveforms"

    @property
    def run_dir(self) -> Path:
        return self.out / "run"

    @property
    def stages(self) -> list[plan.Stage]:
        return plan.stages(self.recipe, self.run_dir)

    @property
    def jobs(self) -> list[Job]:
        return [member.job for stage in self.stages for member in stage.members]

    @property
    def runner(self) -> Runner:
        return Runner(self.recipe, self.dataset, torch.device("cpu"), None)

    def read(self) -> None:
        dataset, _ = data.read([self.competition], self.recipe, self.cache)
        # No speech is known of, until it is searched for.
        self.dataset = replace(dataset, speech={self.jobs[0].data.first_s: {}})

    def split(self) -> None:
        self.dataset.recordings_of(replace(self.jobs[0].data, fold=0))

    def plan(self) -> None:
        runner, stages = self.runner, self.stages
        for line in data.cache_note(self.dataset, self.jobs, self.cache, unlabelled=True):
            LOG.info(line)
        n_windows = {1: sum(file.n_windows for file in runner.to_label(stages[1]))}
        clock = estimate.Clock(self.dataset, runner.device, self.cache)
        for line in estimate.describe(stages, clock, n_windows, runner.done(stages)):
            LOG.debug(line)

    def fill(self) -> None:
        """The cache, without the searches."""
        plain = [
            replace(job, data=replace(job.data, speech="keep", duplicates="unsearched"))
            for job in self.jobs
        ]
        _, lines = data.prepare(self.dataset, plain, self.cache, unlabelled=True)
        for line in lines:
            LOG.info(line)

    def search_duplicates(self) -> None:
        duplicates.find_duplicates(self.dataset.recordings, self._sound, RATE_HZ)

    def search_speech(self) -> None:
        paths = [recording.path for recording in self.dataset.recordings]
        first_s = self.jobs[0].data.first_s
        found = speech.find_speech(paths, self._sound, RATE_HZ, self.cache / "speech-bench.json")
        self.dataset = replace(self.dataset, speech={first_s: found})

    def _sound(self, path: Path) -> NDArray[np.float32]:
        return to_float(self.dataset.waveforms(path, self.jobs[0].data.first_s))

    def draw(self) -> None:
        job = self.jobs[0]
        batches = Batches(self.dataset.sources(job), self.dataset.contract(job), job)
        for step in range(N_BATCHES):
            batches[step]

    def train(self) -> None:
        """The first round's model: two steps, and the validation on labelled soundscapes."""
        self.run_dir.mkdir(parents=True, exist_ok=True)
        self.runner.train(self.stages[0], before=None)

    def label(self) -> None:
        first, second = self.stages
        runner = self.runner
        runner.label(second, runner.teacher(second, first), None)
        labels = pseudo_labels.read(second.folder / pseudo_labels.NAME)
        pseudo_labels.windows_of(labels, second.round.pseudo, self.dataset.unlabelled)

    def learn(self) -> None:
        """The second round, and the figures of both."""
        self.runner.run(self.stages, self.run_dir)

    def gates(self) -> Cost:
        folders = ("--data", self.competition, "--out", self.out / "model")
        return measured_command(["export/to_onnx.py", self.run_dir, *folders], ROOT)

    def convert(self) -> Cost:
        """The IR that a bundle needs."""
        folders = (self.out / "model", "--data", self.competition, "--precision", "f32")
        return measured_command(["export/to_openvino.py", *folders], ROOT)

    def bundle(self) -> Cost:
        folders = ("--model", self.out / "model", "--out", self.out / "kaggle")
        names = ("--owner", "nobody", "--competition", "birdclef-2025")
        wheels = ("--wheels", self.wheels) if self.wheels else ()
        return measured_command(["export/bundle.py", *folders, *names, *wheels], ROOT)


# Name of a stage → its work, which gives a cost of its own where it is another process.
STAGES: dict[str, Callable[[Run], Cost | None]] = {
    "reading": Run.read,
    "splitting": Run.split,
    "plan": Run.plan,
    "cache": Run.fill,
    DUPLICATES: Run.search_duplicates,
    "speech": Run.search_speech,
    f"{N_BATCHES} batches": Run.draw,
    "training, validation": Run.train,
    "pseudo labels": Run.label,
    "students, figures": Run.learn,
    "gates": Run.gates,
    "conversion": Run.convert,
    "bundle": Run.bundle,
}


def compare(
    out: Path, shares: Sequence[float], wheels: Path | None, stages: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """The table of the smallest and the largest share, and the stages that grow wrongly, with why."""
    every = [_measure(out, share, wheels, stages) for share in sorted(set(shares))]
    wrong = growth.faults(every[0], every[-1])
    text = growth.table(every[0], every[-1])
    return f"{text}\n\n{growth.summary(wrong, stages)}", wrong


def _recipe() -> Recipe:
    """The demo's recipe, tiny, whose teacher hears each soundscape once."""
    recipe = recipes.load("demo", TINY)
    once = [replace(one, pseudo=replace(one.pseudo, shifts=())) for one in recipe.rounds]
    return replace(recipe, rounds=tuple(once))


def _measure(out: Path, share: float, wheels: Path | None, stages: Sequence[str]) -> growth.Measured:
    """The cost of each stage on a share of the competition, which is made first."""
    competition = make_full_size(out / f"competition-{share:g}", share)
    folder = out / f"share-{share:g}"
    shutil.rmtree(folder, ignore_errors=True)  # nothing is to be found done
    run = Run(competition, folder, wheels, _recipe())
    costs: dict[str, Cost] = {}
    for name in stages:
        own: list[Cost | None] = []
        cost = measured(lambda name=name, own=own: own.append(STAGES[name](run)))  # type: ignore[misc]
        costs[name] = cost = own[0] or cost
        figures = f"{cost.seconds:.1f} s, {cost.cpu_s:.1f} s of CPU, {cost.peak_mib:.0f} MiB"
        LOG.info(f"{share:g}: {name}: {figures}")
    audio_mib = sum(path.stat().st_size for path in run.cache.glob("*.npy")) / (1 << 20)
    size = Size.of(share)
    inputs: dict[str, int] = {}
    if DUPLICATES in stages:  # it hears the files whose author has another of that length
        inputs[DUPLICATES] = len(duplicates.candidates(run.dataset.recordings))
    return growth.Measured(size.recordings, size.soundscapes, audio_mib, costs, inputs)
