"""What the user says about a model: which checkpoint, in which dtype, on which device."""

from typing import Literal

from pydantic import Field, model_validator

from modularity.config import Config


class ModelConfig(Config):
    """One checkpoint and how to load it."""

    name: str = Field(min_length=1)
    """Hub id (`facebook/opt-125m`) or local folder holding config.json, safetensors weights and tokenizer files."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository; None = main."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Dtype of the weights; `auto` = as saved in the checkpoint."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """`cpu`, `cuda`, `cuda:0` …; `auto` = the first CUDA device if there is one, else the CPU."""
    device_map: Literal["auto", "balanced", "balanced_low_0", "sequential"] | None = None
    """Spread one model over several GPUs (needs the package accelerate); None = all on `device`."""
    attention: str | None = None
    """Attention implementation (`eager`, `sdpa`, `flash_attention_2` …); None = the model's own default."""
    allow_pickle: bool = False
    """Accept pickled weights (pytorch_model.bin): these can run code while loading."""
    trust_remote_code: bool = False
    """Run modelling code that comes with the checkpoint."""
    weights: Literal["pretrained", "random"] = "pretrained"
    """`random`: the architecture of the checkpoint with fresh weights, a control."""
    seed: int = Field(default=0, ge=0, lt=2**63)
    """Seed of random weights."""
    tokenizer: str | None = None
    """Hub id or folder of the tokenizer; None = `name`."""
    cache_dir: str | None = None
    """Folder of the hub cache; None = that of huggingface_hub."""
    matmul: Literal["auto", "highest", "onednn"] = "auto"
    """Route of float32 matrix products on a CPU; `auto` = the faster one that loses no accuracy, by measurement."""

    @model_validator(mode="after")
    def _device_or_map(self) -> "ModelConfig":
        if self.device_map is not None and self.device not in ("auto", "cuda"):
            raise ValueError(
                f"device={self.device!r} and device_map={self.device_map!r} exclude each other; "
                f"leave device at 'auto' when the model is spread over several GPUs"
            )
        return self
