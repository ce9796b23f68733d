"""An agent asks a model, which calls a tool and delegates; each call is a durable step. The model here is scripted."""

import asyncio

import msgspec

from agent_party import Agent, Party, Task
from agent_party.actors.models import ModelAnswer, ModelRequest, Prices, ScriptedModel, at_once, calling

STOCK = {"bolts": 40, "nuts": 12}


class Order(msgspec.Struct):
    """What the model shall come to."""

    item: str
    amount: int


def in_stock(item: str) -> int:
    """How many of an item there are."""
    return STOCK[item]


buyer = Agent("buyer")


@buyer.on("price.quote")
async def quote(task: Task, item: str) -> str:
    """What an item costs at the supplier."""
    return f"{item} cost 0.05 apiece"


def script(request: ModelRequest) -> ModelAnswer | str:
    """In the place of a model: first the two tools, then the answer."""
    if request.messages[-1].role == "user":
        return at_once(calling("in_stock", item="nuts"), calling("quote", item="nuts"))
    return '{"item": "nuts", "amount": 88}'


# With a server: OpenAICompatible("gpt-4o-mini"), or OpenAICompatible("qwen3", base_url="http://localhost:11434/v1").
clerk = Agent("clerk", models={"main": ScriptedModel(script, prices=Prices.of("0.15", "0.60"))})


@clerk.on("stock.order")
async def order(task: Task, item: str, wanted: int) -> Order:
    question = f"We want {wanted} {item}. How many are to be ordered?"
    answer = await task.model("main", question, tools=[in_stock, quote], output=Order)
    print(f"{answer.usage.output_tokens} tokens, {answer.cost}")
    return answer.output


async def main() -> None:
    async with Party.open(agents=[clerk, buyer]) as party:
        task = await party.using(request_id="order-1").ask(order, item="nuts", wanted=100)
        print(await task.result())


asyncio.run(main())
