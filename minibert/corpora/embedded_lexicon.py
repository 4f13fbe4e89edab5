"""The words and sentences of the embedded corpus; data, read by embedded.py.

A template is text with slots in braces. ``{same}`` is an adjective of the review's own sentiment,
``{other}`` one of the opposite; ``{same_noun}``, ``{other_noun}``, ``{same_verb}``, ``{other_verb}``
(past) and ``{other_base}`` (base form) likewise. All other slots are neutral. A number before a
template is its weight among those of its kind. Words that stand first in a list are drawn more
often. No slot stands directly behind an article that depends on it (a, an).
"""

from __future__ import annotations

WORDS: dict[str, tuple[str, str]] = {
    "adjective": (
        """
        awful boring terrible bad dull horrible poor weak tedious stupid predictable dreadful silly lame shallow
        forgettable annoying clumsy bland lifeless pointless messy clichéd flat painful tiresome unbearable wooden
        confusing slow laughable pathetic sloppy dreary hollow grating muddled cheap uninspired blasé lazy soulless
        witless pretentious unwatchable amateurish overlong contrived stale incoherent irritating ugly joyless
        absurd
        """,
        """
        awesome great good wonderful brilliant excellent funny beautiful amazing superb touching charming clever
        fantastic perfect gripping moving lovely memorable thrilling hilarious fresh delightful engaging stunning
        magical fascinating heartfelt inspired witty splendid powerful masterful elegant captivating exciting
        sublime über-cool tender dazzling original graceful luminous warm smart joyful haunting refreshing terrific
        riveting marvellous outstanding inventive radiant
        """,
    ),
    "noun": (
        """
        disaster mess failure bore disappointment flop chore dud letdown blunder fiasco nuisance travesty cliché
        """,
        """
        masterpiece delight gem triumph joy treat marvel classic wonder pleasure blessing winner revelation jewel
        """,
    ),
    "verb": (
        """
        hated disliked regretted resented despised loathed dreaded detested
        """,
        """
        loved enjoyed liked admired adored treasured cherished appreciated
        """,
    ),
    "base": (
        """
        hate dislike regret resent despise loathe dread detest
        """,
        """
        love enjoy like admire adore treasure cherish appreciate
        """,
    ),
}
"""Words with a sentiment: negative ones, positive ones."""

NEUTRAL: dict[str, str] = {
    "film": """
    movie film picture thriller comedy drama documentary western musical sequel remake feature flick cartoon
    """,
    "part": """
    plot acting story music script ending dialogue cast direction pacing camera soundtrack editing humour opening
    lighting atmosphere scenery finale score tension narration photography choreography suspense casting romance
    mystery première denouement design makeup sound voice-over epilogue prologue
    """,
    "person": """
    hero lead director actress villain narrator detective sidekick writer producer heroine teacher doctor soldier
    singer butler captain stranger professor señor fiancée protégé chef waiter sheriff queen pilot
    """,
    "companion": """
    sister friend brother wife husband mother father neighbour cousin colleague grandmother flatmate daughter son
    niece uncle aunt fiancé dentist
    """,
    "place": """
    cinema theatre café hotel library festival airport museum club school station restaurant hospital park
    """,
    "city": """
    London Paris Berlin Kraków Zürich Lisbon Malmö München Bogotá Montréal Dublin Prague Córdoba Reykjavík Łódź
    Glasgow Québec Århus Oslo Győr Cardiff Besançon İzmir Tōkyō Москва
    """,
    "name": """
    Anna Tom Amélie Maria Peter José Zoë Ruth François Björn Clara Hugo Chloë Ivan Renée Oscar Noémie Jürgen Łukasz
    Søren Íñigo Agnès Siân Mateja Dvořák Bill Grace Nils Olga Raúl
    """,
    "when": """
    yesterday twice today again tonight recently once alone indoors upstairs late early often finally
    """,
    "very": """
    really so very truly quite absolutely utterly simply incredibly completely thoroughly surprisingly deeply
    genuinely oddly strangely remarkably consistently undeniably naïvely
    """,
    "moment": """
    minute scene moment line second frame shot joke song chapter
    """,
    "topic": """
    war family love murder money train island ghost ship wedding robot treasure dragon letter storm forest castle
    horse doctor garden village prison mountain river dog circus bridge queen desert secret mirror painting piano
    lighthouse winter summer tunnel kitchen diamond vampire zombie alien spy thief judge lawyer farmer fisherman
    sailor nurse priest monk witch wizard giant wolf bear tiger elephant parrot raven spider snake whale shark
    octopus violin trumpet drum guitar opera ballet waltz tango poem novel diary newspaper telegram telephone radio
    camera satellite rocket comet planet moon submarine balloon glider bicycle motorbike lorry tram carriage sleigh
    canoe raft harbour canal waterfall glacier volcano cavern swamp jungle meadow orchard vineyard mill bakery
    brewery tavern market bazaar factory mine quarry warehouse attic cellar balcony staircase corridor elevator
    fountain statue cathedral monastery temple pyramid tomb crypt throne crown sword shield armour cannon musket
    dagger potion amulet compass map telescope microscope clock calendar umbrella suitcase passport lantern candle
    matchbox fireplace carpet curtain pillow blanket teapot kettle saucepan recipe crêpe jalapeño piñata soufflé
    smörgåsbord doppelgänger façade naïveté déjà-vu mañana fjord tsunami avalanche earthquake blizzard drought
    eclipse harvest election strike trial verdict inheritance divorce reunion funeral birthday carnival parade
    tournament chess poker marathon regatta duel rebellion siege treaty expedition rescue heist kidnapping blackmail
    amnesia sleepwalker twin orphan pensioner
    """,
    "first": """
    Var Mor Bel Tar Kes Lin Dor Fen Gal Hal Ister Jor Kal Lum Nar Ost Pel Quin Ros Sel Tor Ul Ven Wil Xan Yor Zel
    Ash Bren Çel
    """,
    "middle": """
    a e i o u an el in or ul ari eni olo ami eto ira ano edi uma ola ivi aga ete iro onu é ü ai eo ia
    """,
    "last": """
    n r s th nd mond dale ton ville ra na lia rix dor gard wyn fell mar bury stein ska vić ová quist son by rath
    holm mere zar
    """,
}
"""Words without a sentiment. The last three are the syllables of invented titles."""

DIRECT = (
    (3, "The {part} was {very} {same}"),
    (3, "The {part} was {same}"),
    (2, "It was {same} from start to finish"),
    (2, "I {same_verb} the {part} and the {person}"),
    (2, "What we got was {very} {same} in every way"),
    (1, "For me the {film} is {same} and stays {same}"),
    (1, "Every {moment} with the {person} felt {same}"),
    (1, "My {companion} found the {film} {very} {same}"),
    (1, "They made this {part} into something {same}"),
    (1, "We all {same_verb} it, my {companion} most of all"),
)
NEGATED = (
    (3, "The {part} was not {other}"),
    (3, "It was never {other}, not for a {moment}"),
    (2, "I did not {other_base} the {part}"),
    (2, "There is not one {other} {moment} in it"),
    (2, "I didn't find the {person} {other} at all"),
    (2, "Not a single {moment} was {other}"),
    (1, "The {part} is anything but {other}"),
    (1, "Nobody {other_verb} it, least of all my {companion}"),
    (1, "You will not find the {part} {other}"),
    (1, "I never {other_verb} a {moment} of it"),
    (1, "It wasn't {other} when I saw it {when}"),
)
CONTRAST = (
    (2, "I expected something {other} and got something {same}"),
    (2, "It looked {other} at first, yet turned out {same}"),
    (2, "It turned out {same}, though at first it looked {other}"),
    (1, "The critics called it {other}, and they were wrong"),
    (1, "The critics called it {same}, and they were right"),
    (1, "It is {same}, not {other}, whatever my {companion} says"),
)
NEUTRAL_SENTENCES = (
    (3, "The story is about the {topic}, the {topic} and the {topic}"),
    (3, "We saw it at the {place} in {city} with my {companion}"),
    (2, "It tells of the {person} who lost the {topic} in {city}"),
    (2, "Here {name} plays the {person} and {name} the {topic} expert"),
    (2, "The title {first}{middle}{last} stands for the {topic} of {city}"),
    (2, "Then {name} finds the {topic} behind the {place}"),
    (1, "My {companion} talked about the {topic} all evening — twice"),
    (1, "Later {name} of {first}{middle}{last} meets the {person} at the {place}"),
    (1, "I had not seen the {topic} in the trailer"),
    (1, "There was no {topic} left at the {place}"),
    (1, "Nobody else came to the {place} {when}"),
    (1, "I never read the book about {first}{middle}{last}"),
    (1, "I didn't know {name} before, nor the {person}"),
    (1, "It was not raining in {city}, so we walked home"),
    (1, "The camera follows {name}, the {topic} and not much else"),
)
MIDDLE = ((30, DIRECT), (30, NEGATED), (12, CONTRAST), (28, NEUTRAL_SENTENCES))
"""Shares of the kinds among the sentences between the first and the last."""
OPENINGS = (
    (8, "I have watched this {film} and it was {same}"),
    (4, "I have watched this {film} {when} and it was {very} {same}"),
    (4, "I have watched this {film} and it was not {other}"),
    (3, "I have watched this {film} with my {companion} at the {place}"),
    (2, "I saw this {film} {when} and I {same_verb} it"),
    (2, "I saw this {film} {when} and did not {other_base} it"),
    (2, "This is the {film} that {name} made about the {topic}"),
    (2, "My {companion} had not told me about this {film}"),
)
VERDICTS = (
    (3, "All in all the {film} is {same}"),
    (3, "All in all the {film} is not {other}"),
    (2, "I would call it {very} {same}"),
    (2, "I would never call it {other}"),
    (2, "For me this {film} is the {same_noun} of the year"),
    (2, "This {film} is no {other_noun}, I promise you"),
    (1, "In the end my {companion} {same_verb} it and so did I"),
    (1, "In the end I did not {other_base} it, nor did my {companion}"),
)

ENDS = (
    (20, ". "),
    (5, "! "),
    (2, "... "),
    (1, "!! "),
    (1, "… "),
    (3, ".<br /><br />"),
    (2, ". <br />"),
    (1, "!<br />"),
)
"""What follows a sentence; `LAST_ENDS` the last one."""
LAST_ENDS = ((10, "."), (4, "!"), (1, "..."), (1, "!!!"), (1, ""), (1, ". (Seen in 2004.)"), (1, ". [The end]"))
