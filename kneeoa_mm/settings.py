"""What each stage can be told: the keys of its recipes, with their defaults.

Every model is frozen and refuses unknown keys; ``config`` fills them from recipes and flags.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from kneeoa_mm.records import Outcome

Positive = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy and scikit-learn take."""
Crops = Annotated[int, Field(ge=0, le=10, multiple_of=2)]


class Settings(BaseModel):
    """Base of all configuration models: frozen, and no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def to_yaml(self) -> str:
        """The resolved configuration as YAML, keys in the order of their definition."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)

    def digest(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the resolved configuration."""
        return hashlib.sha256(self.to_yaml().encode()).hexdigest()[:12]


class PreprocessConfig(Settings):
    """Films to single-knee images (``kneeoa-mm preprocess``)."""

    crop_mm: Positive = 140.0
    """Side of the square around the joint; 140 mm is the field's habit (Tiulpin et al. 2018)."""
    pixel_spacing_mm: Positive = 0.2
    """Distance between pixels of the knee images."""
    detector: str = "auto"
    """``yolo``, ``profile``, the folder of a detector of your own, or ``auto``: the shipped YOLO
    network where the extra ``yolo`` is installed, else the profile of grey along the leg."""
    min_detector_score: Fraction | None = None
    """Below it the detector abstains and the knee is rejected as ``E_NO_JOINT``; ``null``: the
    confidence that the detector states itself."""
    film_pixel_spacing_mm: float | None = Field(default=None, ge=0.02, le=1.0)
    """Distance between pixels of films that state none; ``null``: unknown, and not invented."""
    allow_burned_in: bool = False
    """Take films whose header says that text is burned into them; otherwise they are rejected as
    ``E_BURNED_IN``."""
    max_pixels: int = Field(default=100_000_000, gt=0)
    """Films of more pixels are refused before decoding."""
    film_timeout_s: Positive = 120.0
    """A film that takes longer is rejected as ``E_TIMEOUT``."""
    film_memory_mb: int = Field(default=4096, ge=64)
    """A film that takes more than this beside what its worker holds anyway is rejected as
    ``E_TOO_LARGE`` (Linux alone keeps the limit)."""


class TrainDetectorConfig(Settings):
    """A YOLO network that finds joints (``kneeoa-mm train-detector``)."""

    image_size_px: int = Field(default=320, ge=64, multiple_of=32)
    """Longer side of a film as the network sees it."""
    depth: Positive = 0.5
    width: Positive = 0.125
    """Multiples of the layers and channels that the YOLO11 drawing states; the smallest published
    network, YOLO11n, has a width of 0.25."""
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=16, ge=1)
    lr: Positive = 2e-3
    patience: int = Field(default=15, ge=1)
    """Epochs without a better validation after which training ends."""
    min_score: Fraction = 0.5
    """The confidence that the model states: below it, it abstains."""
    seed: Seed = 0
    device: Literal["auto", "cpu"] = "auto"


class StageConfig(Settings):
    """One fit of a staged recipe: which layers learn, how fast, for how long."""

    trainable: Literal["head", "all"] | Annotated[int, Field(ge=1)] = "all"
    """``head``, ``all``, or the head and so many last layers of the encoder: a layer is a module
    with weights of its own, such as a convolution. Batch statistics below stay as they are."""
    lr_factor: Positive = 1.0
    """Learning rate of the stage as a multiple of ``train.lr``."""
    epochs: int | None = Field(default=None, ge=1)
    """Without a number: what is left of ``train.epochs``; only the last stage may leave it open.
    Numbers alone must add up to ``train.epochs`` at least; what goes beyond is left out."""
    milestones: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Epochs of the stage after which the rate is multiplied by ``gamma``."""
    gamma: Positive = 0.1
    schedule: Literal["steps", "cosine", "one_cycle"] = "steps"
    """``steps`` obeys ``milestones``; ``cosine`` falls to zero over the stage (Loshchilov and
    Hutter 2017); ``one_cycle`` rises for a fifth of it first, batch by batch (Smith and Topin
    2019)."""


class AugmentConfig(Settings):
    """Random changes of a training image that keep its anatomy true (no vertical flip)."""

    rotation_deg: float = Field(default=10.0, ge=0, le=45)
    scale: float = Field(default=0.1, ge=0, lt=0.5)
    translation: float = Field(default=0.05, ge=0, lt=0.5)
    contrast: float = Field(default=0.2, ge=0, lt=1)
    brightness: float = Field(default=0.1, ge=0, lt=1)
    mixup: float = Field(default=0.0, ge=0)
    """Alpha of the Beta distribution that mixes images and labels of a batch (Zhang et al. 2018);
    0: none."""
    horizontal_flip: bool = False
    """Off by default: knees are mirrored to one orientation, so a flip swaps medial and lateral."""


class TrainConfig(Settings):
    """Optimisation, shared by KL and progression training."""

    optimiser: Literal["adamw", "adam", "sgd"] = "adamw"
    """``sgd`` has a momentum of 0.9; the weight decay of ``adam`` and ``sgd`` is an L2 penalty."""
    lr: Positive = 5e-4
    weight_decay: float = Field(default=1e-4, ge=0)
    batch_size: int = Field(default=32, ge=1)
    epochs: int = Field(default=10, ge=1)
    stages: tuple[StageConfig, ...] = (
        StageConfig(trainable="head", lr_factor=10.0, epochs=1),
        StageConfig(trainable="all"),
    )
    """Head alone first, then all layers at lower rates (Pi et al. 2023)."""
    kl_loss: Literal["cross_entropy", "focal", "expected_grade", "coral", "corn"] = "cross_entropy"
    """Loss of the KL grade; ``coral`` and ``corn`` give the network a head of four thresholds."""
    focal_gamma: float = Field(default=2.0, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    """Of ``cross_entropy``, ``focal`` and ``expected_grade``."""
    ema_decay: float = Field(default=0.0, ge=0, lt=1)
    """Of the moving average of the weights, a batch; 0: none. The averaged weights are the ones
    that are validated and kept."""
    patience: int = Field(default=7, ge=1)
    """Epochs without a better validation after which a stage ends."""
    select_by: Literal["loss", "accuracy", "qwk", "auroc", "last"] = "loss"
    """What the best epoch on the validation part is best in; ``last`` chooses nothing: the last
    epoch is kept, and in cross-validation no fold is spent on a choice."""
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "float32"
    """Of the forward and backward pass; weights stay in float32. ``auto``: bfloat16 where the GPU
    or CPU computes in it, or else float32. ``float16`` needs a GPU."""
    compile: bool = False
    """Let ``torch.compile`` make kernels for the network: for GPUs and long trainings. On a CPU it
    was no gain (0.7 to 0.9 times the speed without)."""
    augment: AugmentConfig = AugmentConfig()

    @model_validator(mode="after")
    def _stages_make_up_the_epochs(self) -> TrainConfig:
        if not self.stages:
            raise ValueError("stages must name at least one stage")
        if any(stage.epochs is None for stage in self.stages[:-1]):
            raise ValueError("only the last of stages may leave epochs open")
        stated = sum(self.stage_epochs())
        if stated < self.epochs:
            raise ValueError(
                f"stages end after {stated} of {self.epochs} epochs: leave those of the last one "
                f"open, or set epochs to {stated}"
            )
        return self

    @property
    def chooses_epoch(self) -> bool:
        """Whether a validation part decides which epoch is kept."""
        return self.select_by != "last"

    def stage_epochs(self) -> list[int]:
        """Epochs of each stage, in order, until ``epochs`` are used up.

        Example:
            >>> TrainConfig(epochs=10).stage_epochs(), TrainConfig(epochs=1).stage_epochs()
            ([1, 9], [1, 0])
        """
        left, taken = self.epochs, []
        for stage in self.stages:
            taken.append(left if stage.epochs is None else min(stage.epochs, left))
            left -= taken[-1]
        return taken


class MemberConfig(Settings):
    """One network of an ensemble."""

    backbone: str = "mobilenet_v2"
    """A classification network of torchvision, ``timm:<name>`` with the extra ``timm``, or one of
    ours: ``simple_cnn``, ``deepknee``."""
    image_size_px: int = Field(default=224, ge=32)
    weights: str = "none"
    """``none``, a safetensors file of the backbone's weights, or ``imagenet``: the file
    ``<backbone>.safetensors`` in the folder that KNEEOA_MM_WEIGHTS names. Nothing is ever
    downloaded."""
    normalisation: Literal["imagenet", "symmetric"] = "imagenet"
    """``symmetric`` maps grey values to [-1, 1]; pretrained weights want what they were fed."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the encoder's features dropped before the head in training."""


class PretrainKLConfig(Settings):
    """KL grading (``kneeoa-mm pretrain-kl``)."""

    seed: Seed = 0
    members: Annotated[tuple[MemberConfig, ...], Field(min_length=1)] = (MemberConfig(),)
    repeats: int = Field(default=1, ge=1)
    """How often each of ``members`` is trained, each time with other random numbers; all vote."""
    train: TrainConfig = TrainConfig()
    balance: Literal["none", "sampling", "weights"] = "none"
    """Against rare grades: draw them more often, or weigh them more in the loss, in inverse
    proportion to their frequency in the training part."""
    folds: int = Field(default=5, ge=3)
    """Folds made when neither ``--folds`` nor the folder gives a split; three are the least, since
    each member needs one fold to be tested on and another to be chosen on."""
    cross_validate: bool = False
    """True trains one member a fold; False trains once, on the folder's own or a made split."""
    validation_fraction: float = Field(default=0.15, gt=0, lt=0.5)
    """Share of subjects held out where a folder has no split of its own."""
    voting: Literal["mix", "hard", "soft"] = "mix"
    reinvert_negatives: bool = True
    """Photometric negatives among the images are recognised and turned back."""
    field_of_view_plateau_widths: Positive | None = None
    """What the model sees, in widths of the tibial plateau. Images that know their field of view
    (those of ``preprocess``) are cut to it; of images that do not, such as a folder of graded PNGs,
    it is a statement, and they are used whole. ``null``: unknown, and all are used whole."""
    joint_row: Fraction = 0.5
    """Height of the middle of the joint space in what the model sees, as a share of it from the
    top; it counts only beside a field of view."""
    test_time_flip: bool = False
    test_time_crops: Crops = 0
    """Average over the image and so many crops of it, in pairs that are shifted by up to 5 % and
    scaled by up to 6 %, one against the other: steadier where a detector finds the joints. Each
    costs as much as the image itself."""
    conformal_method: Literal["lac", "aps"] = "lac"
    """How grades are gathered into sets that hold the true one: ``lac`` makes the smallest sets on
    average, ``aps`` varies their size more with doubt."""
    conformal_alpha: float = Field(default=0.1, gt=0, lt=1)
    """Share of knees whose set may miss the true grade."""

    @property
    def trained(self) -> tuple[MemberConfig, ...]:
        """The members that are trained on a split, repeats one after the other."""
        return self.members * self.repeats


class TrainJSLConfig(Settings):
    """Progression beside KL (``kneeoa-mm train-jsl``)."""

    seed: Seed = 0
    outcome: Outcome = Outcome.JSL_48M
    fuse_clinical: bool = False
    """Whether ``clinical_factors`` join the image; the KL head never sees them."""
    clinical_factors: tuple[str, ...] = (
        "age_years",
        "sex",
        "bmi_kg_m2",
        "race",
        "knee_injury",
        "fta_deg",
    )
    """Columns of the cohort, known at baseline; ``contralateral_kl_grade`` is another. The grade of
    the knee itself has its own switch, ``kl_input``."""
    fusion: Literal["concat", "film", "late"] = "concat"
    """How factors and image join: side by side; factors scale and shift image features (Perez et
    al. 2018); or each has its own score, and these are summed."""
    fusion_width: int = Field(default=32, ge=0)
    """Of ``concat``: hidden units in which both meet; 0: none, and they add up as in ``late``."""
    clinical_width: int = Field(default=32, ge=1)
    """Hidden units in which the factors are encoded."""
    kl_input: Literal["none", "read", "predicted"] = "none"
    """The grade that progression sees, ``read`` or ``predicted`` by the KL head. With ``read`` a
    second branch without it learns beside, for knees that have no reading."""
    time_head: Literal["horizon", "hazard"] = "horizon"
    """Whether there is progression by the horizon of the cohort, or by when: discrete-time
    competing risks, which also learn from knees that were lost before the horizon."""
    visits_months: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (
        12,
        24,
        36,
        48,
    )
    """Of ``hazard``: ends of the bins of time; what is seen later counts as not seen."""
    horizon_months: int = Field(default=48, gt=0)
    """Of ``hazard``: the visit whose cumulative incidence is the outcome's probability; the one at
    which the cohort judges the outcome."""
    death_after_gap: Literal["censor", "either"] = "censor"
    """Of ``hazard``: a death after skipped visits says nothing more than the last film, or, as a
    sensitivity, counts as death or as progression that nobody saw before it."""
    dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of image features dropped before progression in training."""
    loss_weighting: Literal["fixed", "uncertainty"] = "fixed"
    """``uncertainty`` learns the weights of progression and grade (Kendall et al. 2018)."""
    kl_loss_weight: float = Field(default=1.0, ge=0)
    """Weight of the loss of the grade beside 1 for progression."""
    test_time_crops: Crops = 0
    """As in KL grading."""
    train: TrainConfig = TrainConfig(
        lr=1e-4,
        epochs=15,
        label_smoothing=0.0,
        stages=(
            StageConfig(trainable="head", lr_factor=10.0, epochs=5),
            StageConfig(trainable="all"),
        ),
    )
    """Where all stages train the head alone, the features of each image are computed once, and
    ``augment`` has nothing to vary but the views of ``test_time_crops``; ``mixup`` mixes features
    and labels."""

    @model_validator(mode="after")
    def _factors_make_sense(self) -> TrainJSLConfig:
        names = self.clinical_factors
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"clinical_factors: {', '.join(twice)} stands twice")
        if self.fuse_clinical and not names:
            raise ValueError("fuse_clinical wants clinical_factors; without any, set it to false")
        return self

    @model_validator(mode="after")
    def _bins_of_time_make_sense(self) -> TrainJSLConfig:
        if self.time_head == "horizon":
            return self
        if list(self.visits_months) != sorted(set(self.visits_months)):
            raise ValueError("visits_months must rise")
        if self.horizon_months not in self.visits_months:
            raise ValueError("horizon_months must be one of visits_months")
        if self.train.augment.mixup:
            raise ValueError("train.augment.mixup cannot mix times: set it to 0 for hazards")
        return self

    @property
    def is_encoder_frozen(self) -> bool:
        """Whether no stage changes the encoder."""
        return all(stage.trainable == "head" for stage in self.train.stages)


class ExplainConfig(Settings):
    """What moved a model's output (``kneeoa-mm explain``)."""

    seed: Seed = 0
    target: Literal["auto", "grade", "kl_2_or_more", "progression", "0", "1", "2", "3", "4"] = (
        "auto"
    )
    """Whose log-odds are explained: ``grade``, the one predicted; ``kl_2_or_more``; a grade;
    ``progression``. ``auto``: progression where the model predicts it, else ``grade``."""
    methods: tuple[
        Literal["gradcam", "saliency", "integrated_gradients", "occlusion", "gradient_shap"], ...
    ] = Field(default=("gradcam", "saliency", "integrated_gradients"), min_length=1)
    """Maps to make; the first one is drawn on the film. Occlusion takes 64 passes."""
    steps: int = Field(default=16, ge=2)
    """Of the path of integrated gradients."""
    draws: int = Field(default=8, ge=1)
    """Of other knees for gradient SHAP."""
    occlusion_window: float = Field(default=0.125, gt=0, le=0.5)
    """Side of the window, as a share of the picture's."""
    occlusion_stride: float = Field(default=0.125, gt=0, le=0.5)
    """Steps of the window; no larger than the window."""
    check: bool = False
    """Whether maps are checked (``faithfulness.csv``); takes a few times as long as the maps."""
    infidelity_draws: int = Field(default=16, ge=2)
    """How often random parts are taken away from each knee."""
    removal_steps: int = Field(default=8, ge=2)
    """Of deletion and insertion."""
    sensitivity_draws: int = Field(default=2, ge=1)
    """Noisy copies of each knee."""
    repeat_knees: int = Field(default=12, ge=0)
    """Knees, evenly spread, whose maps are made again: on noise, and with random weights. An
    interval needs ten persons."""

    @model_validator(mode="after")
    def _windows_leave_no_gap(self) -> ExplainConfig:
        if self.occlusion_stride > self.occlusion_window:
            raise ValueError("occlusion_stride must not be larger than occlusion_window")
        return self
