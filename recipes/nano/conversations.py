"""Chat turns made of plain sentences: a question about something in the sentence, and the sentence as the answer."""

import random
import re

ALOUD = "Read this aloud."
QUESTIONS = (
    "Tell me about {}.", "Tell me something about {}.", "What do you know about {}?", "What about {}?",
    "Say something about {}.", "Can you tell me about {}?", "Please talk about {}.", "What can you say about {}?",
)  # fmt: skip
OPEN_QUESTIONS = (
    "Hello!", "Hello, how are you?", "Say something.", "Tell me something.", "Tell me a story.",
    "What happened then?", "What do you think?", "Can you help me?", "Good morning.", "Who are you?",
)  # fmt: skip
# Names inside the sentence, and what follows a word that calls for a noun.
TOPIC = re.compile(r"(?:(?<=[a-z,] )[A-Z][a-z]{3,}|(?<=\b(?:the|his|her|our) )[a-z]{4,}|(?<=\ba )[a-z]{4,})(?!['’\w])")
COMMON = frozenset(
    re.findall(
        r"\w+",
        """
        about above after again also back because been before being between both came come could
        does down each even every first from going good have having here into just know like made
        make many more most much must never only other over said same shall should some still such
        take than that their them then there these they this those though through under until upon
        very want well went were what when where which while will with without would your yours
        """,
    )
)


def conversation(text: str, others: list[str], chance: random.Random) -> list[dict[str, str]]:
    """A user's turn to which the sentence is the assistant's answer; sometimes a turn goes before."""
    topics = [word for word in TOPIC.findall(text) if word.lower() not in COMMON]
    draw = chance.random()
    if topics and draw < 0.6:
        topic = chance.choice(topics)
        question = chance.choice(QUESTIONS).format(f"the {topic}" if topic.islower() else topic)
    elif draw < 0.9:
        question = ALOUD
    else:
        question = chance.choice(OPEN_QUESTIONS)
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": text}]
    if chance.random() < 0.15:
        return conversation(chance.choice(others), others, chance)[-2:] + turns
    return turns
