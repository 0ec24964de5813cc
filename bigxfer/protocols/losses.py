"""Losses as (sum, count), so that micro-batches and devices add up exactly.

The mean of a batch is the sum of all totals over the sum of all counts, which no
way of cutting the batch changes. Entries that do not count are replaced before the
loss is taken, so that neither their value nor their gradient can become NaN.
"""

import jax
import jax.numpy as jnp


def sigmoid(
    logits: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Binary cross-entropy in nats, summed over the known entries, and their number.

    logits [b, k]; targets [b, k] in 0..1, NaN where unknown; mask [b], 0 for padding.
    Both results are float32 scalars. Dividing by the number of known entries is what
    SLAMPAI/large-scale-pretraining-transfer pretrain.py compute_loss does.
    """
    known = ~jnp.isnan(targets) & (mask > 0)[:, None]
    # Before the loss: a NaN that is masked after it is still NaN in the gradient.
    z = jnp.where(known, logits.astype(jnp.float32), 0)
    t = jnp.where(known, targets.astype(jnp.float32), 0)
    # Not softplus(z) - t * z, which cancels to 0 for a confident correct answer.
    loss = t * jax.nn.softplus(-z) + (1 - t) * jax.nn.softplus(z)
    return jnp.sum(loss, where=known), jnp.sum(known, dtype=jnp.float32)


def softmax(
    logits: jax.Array, targets: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Cross-entropy in nats, summed over the examples that count, and their number.

    logits [b, k]; targets [b, k], each row a distribution (one-hot, or mixed by
    mixup); mask [b], 0 for padding. Both results are float32 scalars.
    """
    # The targets of a padded row become 0, the weight of its log-probabilities.
    used = (mask > 0)[:, None]
    z = jnp.where(used, logits.astype(jnp.float32), 0)
    t = jnp.where(used, targets.astype(jnp.float32), 0)
    loss = -jnp.sum(t * jax.nn.log_softmax(z))
    return loss, jnp.sum(used, dtype=jnp.float32)


def right_signs(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """How many of the entries that `sigmoid` counts are on the label's side of 0.5."""
    known = ~jnp.isnan(targets) & (mask > 0)[:, None]
    # A logit above 0 is a probability above 0.5. A label mixed to 0.5 counts as
    # negative.
    return jnp.sum((logits > 0) == (targets > 0.5), where=known, dtype=jnp.float32)


def right_classes(logits: jax.Array, targets: jax.Array, mask: jax.Array) -> jax.Array:
    """How many of the examples that `softmax` counts have their class first.

    The class of a mix is the one with the larger share.
    """
    hit = logits.argmax(axis=1) == targets.argmax(axis=1)
    return jnp.sum(hit, where=mask > 0, dtype=jnp.float32)
