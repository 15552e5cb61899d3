"""The devices that JAX finds for this process, or why it finds none."""

import jax

from ptrm_jax.errors import DeviceError


def local() -> tuple[jax.Device, ...]:
    """All devices of this process; asks JAX to start its backends if it has not.

    Raises:
      DeviceError: there are none, or another process holds them.
    """
    try:
        return tuple(jax.local_devices())
    # JAX asserts where a platform was asked for that no plugin provides.
    except (RuntimeError, AssertionError) as error:
        asked = jax.config.jax_platforms  # type: ignore[attr-defined]
        reason = (str(error).strip().splitlines() or ["no such platform is installed"])[0]
        raise DeviceError(
            f"JAX has no device to run on (JAX_PLATFORMS is {asked or 'not set'}): {reason[:300]}; "
            "set JAX_PLATFORMS to what this machine has, such as cpu; install the extra cuda or "
            "tpu; or end the process that holds the device"
        ) from error
