"""The world of the quickstart: 24 small skills, each a closed table of cases and several ways to ask for it.

Every skill is a finite set of (arguments, answer) cases, so a very small model can know it from pre-training,
which says "the reverse of stone is enots" in many frames; the pool says "Flip the letters of stone."
What the model has to learn from annotations is which instruction means which skill.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

Case = tuple[tuple[str, ...], str]  # (arguments, answer)

# Everyday words of three to six letters, the arguments of all letter skills.
WORDS = """
ant apple apron arm arrow baby bag ball band bank barn basket bath beach bean bear bed bee bell belt bench berry bike
bird blade blue board boat body bone book boot bottle bowl box boy brain branch bread brick bridge broom brush bucket
bug bus butter button cabin cake camel camp candle candy car card carpet castle cat cave chain chair chalk cheese
cherry chest chin church circle city clay clock cloth cloud club coal coast coat coffee coin comb cook copper corn
cotton cow crab crane cream crow crown cup dance dawn day desert desk dinner dish doctor dog doll donkey door dove
dragon dream dress drum duck dust eagle ear earth egg elbow engine eye face farm farmer father feast fence field fig
film finger fire fish flag flame flock floor flour flower fly fog folk food foot forest fork fox frame friend frog
fruit game garden garlic gate ghost gift girl glass glove goat gold goose grain grape grass green guest guitar gun
hair hall hammer hand hat hawk head heart hill honey hook horn horse hotel house ice ink iron island jacket jam jar
jewel judge juice jump kettle key king kite knee knife ladder lake lamb lamp land leaf lemon letter light lily lion
lip lock log lunch magic mail map maple market mask meal meat melon metal milk mill mint mirror money monkey moon
mother motor mouse mouth mud music nail neck needle nest net night north nose note number nurse nut oak oar ocean oil
olive onion orange oven owl ox paint pan paper park party path peach pear pearl pen pencil pepper piano pig pillow
pilot pine pipe plane planet plant plate plum pocket poem pond pony potato pot prince prize queen rabbit radio rain
ranch ribbon rice ring river road robin rock roof room root rope rose ruby rug saddle sail salad salt sand school sea
seed shade shark sheep shelf shell ship shirt shoe shop silk silver singer sister sky sled sleep smile smoke snail
snake snow soap sock sofa soil son song soup spade spark spider spoon spring square stage star steam steel stem stick
stone storm stove street string sugar summer sun swan table tail taxi tea temple tent thread throne tiger timber toast
toe tomato tool tooth tower town toy track train tray tree truck tulip tunnel turkey turtle uncle valley vase violin
voice wagon wall water wave wax wheel whale wheat wind window wine wing winter wolf wood wool world worm yard
""".split()

UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()
TENS = "zero ten twenty thirty forty fifty sixty seventy eighty ninety".split()

PLURALS = """apple apples baby babies box boxes bus buses child children city cities cow cows dish dishes dog dogs
fly flies foot feet fox foxes girl girls glass glasses goose geese hero heroes house houses key keys kiss kisses knife
knives lady ladies leaf leaves life lives loaf loaves man men match matches mouse mice party parties peach peaches
pony ponies potato potatoes road roads shelf shelves ship ships story stories tomato tomatoes tooth teeth toy toys
tree trees watch watches wife wives wish wishes wolf wolves woman women word words berry berries brush brushes
river rivers table tables lion lions bench benches thief thieves ox oxen""".split()
OPPOSITES = """hot cold big small up down in out day night left right open closed old young fast slow high low early
late full empty hard soft happy sad rich poor strong weak wet dry light dark long short thick thin clean dirty loud
quiet deep shallow sweet sour wide narrow first last near far win lose buy sell push pull love hate true
false""".split()
PASTS = """go went eat ate see saw run ran take took give gave come came write wrote sing sang drink drank swim swam
begin began break broke buy bought bring brought catch caught teach taught think thought find found hold held keep
kept leave left make made pay paid say said sell sold send sent sit sat sleep slept speak spoke stand stood steal
stole tell told throw threw wear wore win won walk walked play played talk talked call called cook cooked jump jumped
help helped work worked know knew grow grew fly flew draw drew drive drove ride rode""".split()
CAPITALS = """France Paris Spain Madrid Italy Rome Germany Berlin Poland Warsaw Austria Vienna Greece Athens Portugal
Lisbon Ireland Dublin England London Norway Oslo Sweden Stockholm Finland Helsinki Denmark Copenhagen Hungary Budapest
Russia Moscow Ukraine Kyiv Turkey Ankara Egypt Cairo Kenya Nairobi Ghana Accra Morocco Rabat Japan Tokyo China Beijing
India Delhi Nepal Kathmandu Iran Tehran Iraq Baghdad Cuba Havana Peru Lima Chile Santiago Canada Ottawa Jamaica Kingston
Vietnam Hanoi Thailand Bangkok Belgium Brussels Bulgaria Sofia Romania Bucharest Serbia Belgrade Lebanon
Beirut""".split()
COLOURS = """banana yellow lemon yellow cherry red tomato red strawberry red blood red grass green leaf green frog
green lime green cucumber green sky blue sea blue snow white milk white salt white swan white coal black crow black
tar black night black carrot orange pumpkin orange plum purple eggplant purple violet purple chocolate brown coffee
brown bear brown elephant grey ash grey mouse grey flamingo pink pig pink sun yellow canary yellow""".split()
KINDS = """robin bird eagle bird owl bird swan bird salmon fish trout fish tuna fish shark fish apple fruit pear fruit
grape fruit mango fruit hammer tool saw tool drill tool wrench tool piano instrument violin instrument flute
instrument drum instrument oak tree pine tree maple tree birch tree rose flower tulip flower lily flower daisy flower
bee insect ant insect fly insect wasp insect shirt clothing coat clothing sock clothing hat clothing""".split()
YOUNG = """dog puppy cat kitten cow calf horse foal sheep lamb goat kid pig piglet hen chick duck duckling goose gosling
bear cub lion cub wolf cub fox cub deer fawn frog tadpole swan cygnet kangaroo joey owl owlet eagle eaglet elephant
calf whale calf rabbit bunny tiger cub seal pup zebra foal moth larva""".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()


NAMES = "Anna Ben Clara David Ella Finn Grace Henry Iris Jack Kate Leo Mia Noah Olga Paul Ruth Sam Tina Victor".split()

# Only pre-training says it this way: {p} is a phrase of the skill, {a} the answer. The names teach it to look past words.
STATEMENTS = (
    "{p} is {a}.", "{p}: {a}.", "{p} gives {a}.", "{p} = {a}.", "{name} says that {p} is {a}.", "{name} knows {p}: {a}.",
    "as for {p}, {name} found {a}.",
)  # fmt: skip
QUESTIONS = (
    "What is {p}?", "{p}?", "Tell me {p}.", "Do you know {p}?", "can you say {p}?", "Please find {p}.", "{p} is what?",
    "{name} asks for {p}.", "{name} wants {p}.", "what does {name} get for {p}?",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Skill:
    """One skill: its cases, what pre-training calls the answer, and how the pool asks for it.

    Phrases and instructions take the arguments as {0} and {1}. `asked`: pre-training also asks for it, in English.
    """

    name: str
    cases: tuple[Case, ...]
    phrases: tuple[str, ...]
    instructions: tuple[str, ...]
    asked: bool = False


def _numeral(n: int) -> str:
    if n < 20:
        return UNITS[n]
    return TENS[n // 10] + ("-" + UNITS[n % 10] if n % 10 else "")


def _words(answer) -> tuple[Case, ...]:
    return tuple(((word,), answer(word)) for word in WORDS)


def _numbers(stop: int, answer) -> tuple[Case, ...]:
    return tuple(((str(n),), answer(n)) for n in range(1, stop))


def _pairs(first: range, second: range, keep, answer) -> tuple[Case, ...]:
    return tuple(((str(x), str(y)), str(answer(x, y))) for x, y in product(first, second) if keep(x, y))


def _table(flat: list[str], both: bool = False) -> tuple[Case, ...]:
    """A flat list question, answer, question, answer ... as cases; `both`: it also holds the other way round."""
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    return tuple(((x,), y) for x, y in pairs + [(y, x) for x, y in pairs if both])


def _after(cycle: list[str]) -> list[str]:
    return [name for pair in zip(cycle, cycle[1:] + cycle[:1], strict=True) for name in pair]


# From the skill with the most instructions to the one with the fewest: the order gives the Zipf rank.
SKILLS = (
    Skill(
        "larger",
        _pairs(range(1, 31), range(1, 31), lambda x, y: x != y, max),
        ("the larger of {0} and {1}", "the greater of {0} and {1}", "the bigger number, {0} or {1},", "the maximum of {0} and {1}"),
        ("Which is larger, {0} or {1}?", "Pick the bigger number: {0}, {1}.", "Give the greater of {0} and {1}.",
         "{0} and {1}: name the maximum.", "Choose the highest: {0} or {1}."),
    ),
    Skill(
        "reverse",
        _words(lambda w: w[::-1]),
        ("{0} backwards", "the reverse of {0}", "{0} with its letters flipped", "{0} from the end to the start"),
        ("Write {0} backwards.", "Reverse the word {0}.", "Flip the letters of {0}.",
         "Spell {0} from the end to the start.", "Turn {0} around, letter by letter."),
        asked=True,
    ),
    Skill(
        "add",
        _pairs(range(1, 16), range(1, 16), lambda x, y: True, lambda x, y: x + y),
        ("{0} plus {1}", "the sum of {0} and {1}", "{0} + {1}", "the total of {0} and {1}"),
        ("Add {0} and {1}.", "Compute {0} plus {1}.", "Work out {0} + {1}.", "Give the sum of {0} and {1}.",
         "Put {0} and {1} together. What is the total?"),
    ),
    Skill(
        "first",
        _words(lambda w: w[0]),
        ("the first letter of {0}", "the letter with which {0} starts", "the initial of {0}", "the beginning of {0}"),
        ("Give the first letter of {0}.", "With which letter does {0} start?", "Name the initial of {0}.",
         "{0}: write only its first letter.", "Which letter begins {0}?"),
    ),
    Skill(
        "upper",
        _words(str.upper),
        ("{0} in capitals", "{0} in upper case", "the word {0} in big letters", "{0} with capital letters"),
        ("Write {0} in capitals.", "Put {0} into upper case.", "Shout the word {0} in big letters.",
         "Capitalise every letter of {0}.", "Change {0} to capital letters."),
    ),
    Skill(
        "subtract",
        _pairs(range(2, 21), range(1, 20), lambda x, y: y < x, lambda x, y: x - y),
        ("{0} minus {1}", "the difference of {0} and {1}", "{0} - {1}", "{1} taken away from {0}", "{1} subtracted from {0}"),
        ("Subtract {1} from {0}.", "Compute {0} minus {1}.", "Work out {0} - {1}.", "Take {1} away from {0}.",
         "Give the difference of {0} and {1}."),
        asked=True,
    ),
    Skill(
        "last",
        _words(lambda w: w[-1]),
        ("the last letter of {0}", "the letter with which {0} ends", "the final letter of {0}", "the end of {0}"),
        ("Give the last letter of {0}.", "With which letter does {0} end?", "Name the final letter of {0}.",
         "{0}: write only its last letter.", "Which letter closes {0}?"),
    ),
    Skill(
        "repeat",
        _words(lambda w: f"{w} {w}"),
        ("{0} said twice", "the word {0} repeated", "two times the word {0}", "{0} and again {0}"),
        ("Say {0} twice.", "Repeat the word {0}.", "Write {0} two times.", "Echo {0} once more after itself.",
         "Print {0} and then again {0}."),
        asked=True,
    ),
    Skill(
        "length",
        _words(lambda w: str(len(w))),
        ("the number of letters in {0}", "the length of {0}", "the count of the letters of {0}", "how long {0} is"),
        ("Count the letters of {0}.", "How many letters has {0}?", "Give the length of {0}.",
         "How long is the word {0}?", "State the number of letters in {0}."),
    ),
    Skill(
        "spell",
        _words("-".join),
        ("{0} spelled out", "{0} with dashes", "{0} split into letters", "the spelling of {0} with hyphens"),
        ("Spell {0} with dashes.", "Spell out the word {0}.", "Put dashes between the letters of {0}.",
         "Split {0} into letters with hyphens.", "Spell {0} slowly."),
    ),
    Skill(
        "sort",
        _words(lambda w: "".join(sorted(w))),
        ("the letters of {0} sorted", "{0} in alphabetical order", "{0} from a to z", "{0} put in order"),
        ("Sort the letters of {0}.", "Put the letters of {0} in order.", "Alphabetical order for {0}, please.",
         "Arrange {0} from a to z.", "Order {0} by the alphabet."),
    ),
    Skill(
        "consonants",
        _words(lambda w: "".join(c for c in w if c not in "aeiou")),
        ("{0} without vowels", "the consonants of {0}", "{0} after dropping the vowels", "{0} with each vowel removed"),
        ("Remove the vowels from {0}.", "Write {0} without vowels.", "Keep only the consonants of {0}.",
         "Drop a, e, i, o and u from {0}.", "Delete each vowel in {0}."),
        asked=True,
    ),
    Skill(
        "multiply",
        _pairs(range(2, 11), range(2, 11), lambda x, y: True, lambda x, y: x * y),
        ("{0} times {1}", "the product of {0} and {1}", "{0} x {1}", "{0} multiplied by {1}"),
        ("Multiply {0} by {1}.", "Compute {0} times {1}.", "Work out {0} x {1}.", "Give the product of {0} and {1}.",
         "What do {0} rows of {1} make?"),
    ),
    Skill(
        "parity",
        _numbers(100, lambda n: "odd" if n % 2 else "even"),
        ("the parity of {0}", "even or odd for {0}", "{0}, odd or even,", "the choice between odd and even for {0}"),
        ("Say if {0} is even or odd.", "Even or odd: {0}.", "Give the parity of {0}.", "{0}: odd or even?",
         "Decide between odd and even for {0}."),
        asked=True,
    ),
    Skill(
        "numeral",
        _numbers(100, _numeral),
        ("{0} in words", "the English name of {0}", "the number {0} spelled out", "how {0} is said aloud"),
        ("Write {0} in words.", "Spell out the number {0}.", "Put {0} into words.", "How is {0} said aloud?",
         "Name the number {0} in English."),
    ),
    Skill(
        "plural",
        _table(PLURALS),
        ("the plural of {0}", "more than one {0}", "the word for many, not one {0},", "several times {0}"),
        ("Give the plural of {0}.", "Make {0} plural.", "One {0}, many what?", "Name several of them: {0}.",
         "Write the word for more than one {0}."),
    ),
    Skill(
        "double",
        _numbers(61, lambda n: str(2 * n)),
        ("twice {0}", "the double of {0}", "two times {0}", "{0} doubled"),
        ("Double the number {0}.", "Give twice {0}.", "Work out two times {0}.", "Make {0} twice as much.",
         "Compute the double of {0}."),
    ),
    Skill(
        "opposite",
        _table(OPPOSITES, both=True),
        ("the opposite of {0}", "the contrary of {0}", "the word that means not {0}", "the opposite word to {0}"),
        ("Give the opposite of {0}.", "Name the contrary of {0}.", "Not {0} but what?", "Turn {0} into its opposite.",
         "Which word is contrary to {0}?"),
        asked=True,
    ),
    Skill(
        "past",
        _table(PASTS),
        ("the past tense of {0}", "{0} in the past", "{0} as it was yesterday", "the past form of {0}"),
        ("Give the past tense of {0}.", "Put {0} into the past.", "Today I {0}, yesterday I what?",
         "Write {0} as it was yesterday.", "Name the past form of {0}."),
    ),
    Skill(
        "capital",
        _table(CAPITALS),
        ("the capital of {0}", "the main city of {0}", "the city that governs {0}", "the capital city: {0},"),
        ("Name the capital of {0}.", "Give the main city of {0}.", "Which city governs {0}?",
         "State the capital city: {0}.", "From where is {0} ruled?"),
        asked=True,
    ),
    Skill(
        "colour",
        _table(COLOURS),
        ("the colour of {0}", "the usual colour of {0}", "how {0} is coloured", "the paint for {0}"),
        ("Name the colour of {0}.", "Which colour has {0}?", "Give the usual colour of {0}.", "Paint {0}. Which colour?",
         "Say how {0} is coloured."),
    ),
    Skill(
        "kind",
        _table(KINDS),
        ("the kind of thing that {0} is", "the group of {0}", "the class of {0}", "the category of {0}"),
        ("What kind of thing is {0}?", "Name the group of {0}.", "Classify {0}.", "To which class belongs {0}?",
         "Give the category of {0}."),
    ),
    Skill(
        "young",
        _table(YOUNG),
        ("the young of the {0}", "a baby {0}", "the little one of the {0}", "the word for a young {0}"),
        ("Name the young of the {0}.", "What is a baby {0} called?", "Give the word for a young {0}.",
         "The little one of the {0}?", "How does one call the child of the {0}?"),
    ),
    Skill(
        "calendar",
        _table(_after(DAYS) + _after(MONTHS)),
        ("the one after {0}", "what follows {0}", "the next one when {0} is over", "the successor of {0}"),
        ("Which comes after {0}?", "What follows {0}?", "Name the one after {0}.", "{0} is over. What is next?",
         "Give the successor of {0}.", "It was {0}. What is it now?"),
        asked=True,
    ),
)
