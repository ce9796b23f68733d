"""What a model's tokens cost, from the `genai-prices` library: the data that is bundled with it, never the network."""

from ..errors import ConfigurationError
from ..model import Cost, Usage

NEEDS = "needs a package that cannot be imported ({error}): pip install 'agent-party-runtime[models]'"


def known_cost(usage: Usage, model: str, url: str) -> Cost | None:
    """What so many tokens cost at the provider behind a URL; None where provider or model are not in the data.

    The library's own updates over the network run only where somebody starts them, which nothing here does.
    """
    try:
        import genai_prices
    except ImportError as error:
        raise ConfigurationError(f"the price of {model} {NEEDS.format(error=error)}, or give prices=") from error
    cached = min(usage.cached_tokens, usage.input_tokens)
    tokens = genai_prices.Usage(
        input_tokens=usage.input_tokens, output_tokens=usage.output_tokens, cache_read_tokens=cached
    )
    try:
        return Cost(genai_prices.calc_price(tokens, model, provider_api_url=url).total_price)
    except (LookupError, ValueError):
        return None
