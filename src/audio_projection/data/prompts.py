"""Prompts for texts that the language model writes: kinds of sentences times subjects, in English.

Between them they ask for what the transcripts of read books lack: names, capitals, figures, marks, speech, questions.
"""

from __future__ import annotations

_KINDS = (
    "Write ten short, simple sentences about {}.",
    "Write eight sentences about {} that name people, towns, rivers and countries.",
    "Write eight sentences about {} with figures in them: years, dates, prices, times of day, measures, percentages.",
    "Write eight questions about {}, and a short answer after each.",
    "Write a lively conversation about {} between two people, with quotation marks, exclamation marks and names.",
    "Write six long sentences about {} with commas, semicolons, colons, dashes and parentheses.",
    "Write ten headlines about {} with abbreviations and capitals such as NASA, USB, BBC, Dr. and U.S.",
    "Write a short letter about {} to a friend.",
    "Write a news report about {} in seven sentences.",
    "Write a small story about {} in eight sentences.",
    "Explain to a child what matters about {}, in plain sentences.",
    "Give ten pieces of advice about {}, each in one sentence.",
    "Write eight sentences about {} with rare and long words in them.",
    "Write ten announcements about {} as they are heard on the radio, at a station or in a shop.",
)

_SUBJECTS = (
    "the weather", "a railway journey", "cooking a meal", "the garden in spring", "the city at night", "the sea",
    "a football match", "the stock market", "a visit to the doctor", "school", "the history of Rome", "birds",
    "the planets", "computers", "music", "a museum", "an election", "a court of law", "the mountains", "a hotel",
    "the airport", "farming", "the theatre", "chemistry", "mathematics", "a wedding", "the postal service",
    "a bank account", "the telephone", "a broken car", "health and sleep", "clothes", "dogs and cats", "a long film",
    "a famous painter", "the law of gravity", "insects", "a power station", "the desert", "an old castle",
    "buying a house", "a job interview", "the newspaper", "a birthday party", "chess", "the kitchen", "a factory",
    "dinosaurs", "a ship in a storm", "the police", "poetry", "winter sports", "a language course", "the market",
    "medicine", "an expedition to the Arctic", "the library", "wine and cheese", "a robot", "the economy of Japan",
    "the French Revolution", "the human body", "a lost key", "neighbours", "a bicycle repair", "the parliament",
)  # fmt: skip

PROMPTS = tuple(kind.format(subject) for subject in _SUBJECTS for kind in _KINDS)
