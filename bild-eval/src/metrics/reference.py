#!/usr/bin/env python3
"""What sacrebleu, rouge-score and NLTK say of some texts and words: the reference of the tests of these modules.

    python -m venv venv && venv/bin/pip install sacrebleu==2.6.0 rouge-score==0.1.2 nltk==3.10.4
    venv/bin/python reference.py reference.json [FILE …]

The texts were written for this file, and so the result may be shared as this repository is. With files, one sentence a
line, the references come from them instead (and `--pairs` bounds how many), for a check against texts that may not be
shared. The hypotheses are the references with a few changes each, drawn from a seeded generator.
"""
import argparse, json, random, re
from importlib.metadata import version

import sacrebleu
from nltk.stem.porter import PorterStemmer
from rouge_score.rouge_scorer import RougeScorer

parser = argparse.ArgumentParser()
parser.add_argument("out")
parser.add_argument("files", nargs="*")
parser.add_argument("--pairs", type=int, default=500)
parser.add_argument("--seed", type=int, default=1)
arguments = parser.parse_args()
draw = random.Random(arguments.seed)

SENTENCES = """
I'm afraid I don't have time for that today.
Could you tell me where the nearest bus stop is?
She said she'd call back, but she never did.
We were just about to leave when it started raining.
He's been learning the violin since he was seven years old.
How much does a ticket to Hamburg cost?
My grandmother's kitchen always smelled of cinnamon and coffee.
Nobody knew that the bridge had been closed.
If you'd asked me earlier, I could have helped you.
There isn't any milk left, is there?
They have agreed to meet again next Thursday.
You should try to get more sleep.
Both of my sisters are studying medicine.
The children were hopping over the puddles and laughing loudly.
I forgot my umbrella on the train!
"That's not what I meant," he answered quietly.
It's a pity that you can't stay any longer.
Whose bicycle is standing in front of the garage?
What would you do if you lost your passport?
He denied having opened the letter.
Tom's car broke down twice last winter.
No, thanks; I've already eaten.
Let's see who gets there first.
The soup is still too hot to eat.
I only believed him because he seemed so nervous.
She has lived in Zürich for almost ten years.
Don't touch the stove - it's hot.
Are you lying to me, or are you just dreaming?
Every house on our street was built before 1920.
The older I get, the less I worry about it.
A woman in a green raincoat is waiting at a crossing.
Two dogs chase a red ball across a snowy field.
A man with a beard plays the accordion on a crowded square.
Several people are sitting around a table and playing cards.
A little girl wearing a yellow helmet rides her scooter downhill.
Three workers in orange vests are repairing the tracks.
A cyclist jumps over a wooden ramp while his friends watch.
An elderly couple walks hand in hand along the beach at sunset.
A boy is climbing up a rope ladder in a playground.
Four women dressed in black are singing on a stage.
A chef slices vegetables in a narrow kitchen.
A black-and-white cat sleeps on a pile of newspapers.
Some teenagers are filming each other beside a fountain.
A barefoot man carries a surfboard towards the waves.
A crowd gathers around a street artist who paints with chalk.
The council approved the budget of 3.2 million euros on Tuesday, after months of debate.
Prices rose by 2.5 % in March, compared with 1.9 % a year earlier.
The company, which employs 12,400 people, plans to close two of its factories by 2027.
According to the ministry, more than 1,000 schools will receive new computers.
The river reached 7.45 metres on Sunday night; hundreds of residents had to leave their homes.
Researchers have found that bees recognise patterns far better than expected.
The trial against the former mayor begins on 14 October and is expected to last until spring.
Shares fell sharply after the announcement, but recovered most of their losses within hours.
"We simply underestimated the demand," admitted the head of the department.
The museum will reopen in 2025-26 with an exhibition of early photographs.
The two countries have signed a treaty on the protection of migrating birds.
A fire destroyed a warehouse near the harbour; nobody was injured, police said.
Unemployment among young people has dropped to its lowest level since 1998.
The train drivers' union has called for a strike from 6 a.m. on Friday to 10 p.m. on Saturday.
Critics described the film as long, loud and surprisingly funny.
The goalkeeper saved two penalties in a match that ended 4-3.
Farmers are worried about the drought: it has hardly rained for eleven weeks.
Engineers are still examining why the satellite stopped transmitting.
The airline apologised to its passengers for delays of up to nine hours.
The new law obliges landlords to publish the energy consumption of their buildings.
The rapporteur has rightly emphasised the necessity of transparency in these negotiations.
I should like to thank the committee for its thorough and constructive work.
This regulation must be applied consistently, otherwise it remains meaningless.
We cannot accept that the citizens are informed only after the decisions have been taken.
The proposal combines economic reasonableness with social responsibility.
Ladies and gentlemen, the sustainability of our institutions depends on their credibility.
It would be irresponsible to postpone the organisation of these elections any further.
My group will therefore vote in favour of amendments 4, 7 and 12-15.
The effectiveness of such measures has been questioned repeatedly.
Mr President, the generalisation of this practice is neither desirable nor feasible.
This package contains the documentation and some examples.
The program reads a list of files from standard input and prints their sizes.
Set the variable to "yes" (the default is "no") before you start the server.
It supports the formats PNG, JPEG and TIFF, and can be extended with plug-ins.
The library offers bindings for C++, Python 3.11 and several other languages.
Use the option --verbose to see what is being installed.
If the connection is interrupted, the download resumes automatically.
Version 2.0 fixes a crash that occurred when the folder was empty.
Please note: the configuration file must be readable by every user of the system.
The editor highlights matching brackets, folds functions & checks the spelling.
So what happened when we gave the same puzzle to five-year-olds?
And that, I think, is the most hopeful idea of all.
I remember standing there, completely speechless, with a microphone in my hand.
We measured it again and again - thousands of times - and nothing changed.
Imagine a library in which every book rewrites itself while you're reading it.
You don't need permission to be curious.
My father used to say that a good question is worth more than ten answers.
That's why we started to build machines that listen before they speak.
Who decides what is beautiful? And who decides who decides?
A café in the old town has been voted the friendliest in the country, although it has only six seats.
Volunteers have planted 25,000 trees on a former landfill, turning it into a park that opens this weekend.
Scientists warn that the glacier may disappear entirely by 2040 unless emissions are reduced substantially.
A teacher who walked 900 kilometres for charity has been welcomed home by hundreds of cheering pupils.
The village shop that was saved by its customers has won a national award for its organisation.
Detectives are appealing for witnesses after a painting worth £80,000 was stolen from a gallery in broad daylight.
Plans to build a tunnel under the bay have been abandoned. The government says that the costs had doubled since the \
first estimate. Opponents of the project celebrated the decision.
A storm has left 40,000 households without electricity. Repairs are continuing. Schools stay closed until Wednesday.
The orchestra's new conductor is only 24 years old. She studied in Vienna and Leipzig. Her first concert was sold out.
The rescue of a whale stranded near the port took nineteen hours. Dozens of helpers kept the animal wet with buckets. \
It was finally released into deeper water.
The city wants to lower its speed limit to 30 km/h. Shopkeepers fear for their sales; doctors welcome the plan. The \
decision will be taken in June.
A lost wedding ring was returned to its owner after 51 years. A gardener found it on a carrot. "I couldn't believe my \
eyes," he said.
""".strip().split("\n")

# What the tokenizers, the averages and the smoothing treat in ways of their own.
ODD = [
    ("", ""), ("", "A reference."), ("A hypothesis.", ""), (" ", "A reference."), ("A hypothesis.", " \t\n"),
    ("\n", " "), ("...", "!?"), ("...", "..."), ("?!", "?! ?!"), (". , ; :", ".,;:"), ("Yes", "Yes"),
    ("Yes.", "Yes!"), ("a", "a"), ("a", "b"), ("ab", "abc"), ("I am", "I am."), ("The cat sat", "The cat sat"),
    ("no, no, no, no", "no"), ('He said "yes" & left.', "He said &quot;yes&quot; &amp; left."),
    ("1 < 2 > 0", "1 &lt; 2 &gt; 0"), ("AT&T and R&D; &lt;b&gt;", "AT&amp;T and R&amp;D; &amp;lt;b&amp;gt;"),
    ("&amp;quot;", "&quot;"), ("It cost 1,000.50 (or 3-4 times 1000).", "It cost 1,000.5 - 3-4 times 1,000."),
    ("1.5, 2.5, .5 and 5.", "1,5 2,5 0,5 5."), ("3 - 4 -5 --6 7-8-9", "3-4 - 5 --6 7-8-9"),
    ("well-known e-mail", "well known email"), ("U.S.A. e.g. a.m.", "USA eg am"),
    ("Wait... what,,,?", "Wait…what, , ,?"), ("wait...,5 a..5 5..a .,5", "wait . . . 5 a.5 5. .a ,5"),
    ("don't 'quoted' rock'n'roll", "don’t ‘quoted’ rock'n'roll"), ("line one\nline two", "line one line two"),
    ("hyphen-\nation works", "hyphenation works"), ("ends with -\n", "ends with -"),
    ("<skipped>some text", "some text"), ("a<skipped>b -<skipped>\nc", "ab c"),
    ("tab\tseparated\r\ntext", "tab separated text"), ("no\u00a0break\u2003space", "no break space"),
    ("unit\u001fseparated\u001ctext", "unit separated text"), ("zero\u200bwidth joiner\u200d", "zerowidth joiner"),
    ("  leading and trailing \u3000", "leading and trailing"), ("Füße über Straßen", "FÜSSE ÜBER STRASSEN"),
    ("naïve café résumé", "naive cafe resume"), ("cafe\u0301", "café"), ("今天天气很好。", "今天天气不错。"),
    ("私は 学生です。", "私は学生です。"), ("Привет, мир!", "Привет мир"),
    ("Great 👍🏽 job 👩‍👩‍👧!", "Great 👍 job 👩‍👧!"), ("²³ ½ ٣.٤ ３，４", "23 1/2 3.4 3,4"),
    ("\u212aelvin \u0130stanbul", "kelvin istanbul"),
    ("{[(~`@#$%^*_+=|\\/)]}", "{ [ ( ~ ` @ # $ % ^ * _ + = | \\ / ) ] }"),
    ("THE CAT SAT ON THE MAT", "the cat sat on the mat"), ("the the the the the the the", "the cat is on the mat"),
    ("word " * 40, "word " * 41), ("snake_case x2 1990s 2nd", "snake case x2 1990 2"),
    ("The ponies agreed, hopping and dying for relational formalities.",
     "A pony agrees; it hops and dies for a relation's formality."),
    ("He was proceeding with geological innings news under the skies",
     "He proceeds with geology, an inning, new skies"),
]

# Words for each rule of the stemmer, and for what its extensions change.
RULES = """
caresses ponies ties dies caress cats gas this miss flies spies ies lies feed agreed freed plastered bled motoring
sing conflated troubled sized hopping tanned falling hissing fizzed failing filing died spied tied owed owing aging
egged happy sky fly try spy enjoy say by cry toy syzygy play employed boyish yyyy yyyyed eyed ing ings eed sses ss s y
oy relational conditional rational valenci hesitanci digitizer conformabli radicalli differentli vileli analogousli
vietnamization predication operator feudalism decisiveness hopefulness callousness formaliti sensitiviti sensibiliti
conditionally radically nationally ally alli rally tally usually respectfully fully hopefully geology theology apology
philology logi logy analogi triplicate formative formalize electriciti electrical hopeful goodness useful awful ness
revival allowance inference airliner gyroscopic adjustable defensible irritant replacement adjustment dependent
adoption homologou communism activate angulariti homologous effective bowdlerize opinion region million champion
cement element moment comment probate rate cease controll roll controlled rolled enrolling eel tree knee free agree
owe ewe axe awe skies dying lying tying news innings inning outings outing cannings canning howe proceed exceed
succeed proceeding succeeded exceeds dyed 1990s 2nd x11 a1b2ed 3ing 007s b2bing covid19 mp3s h2oed aa1ed 11ed
""".split()
BASES = """
act adjust agree allow archaeo assert attend base bell bill bless box care class combin commun compel conduct conform
connect control cry decide deny depend differ digit electr employ enjoy fail fall fil fizz form fulfil general glad
happy hiss hop hope hopp hous inform jog lov march marry modul nation obey operat organ owe pay plan ply predic public
quiet radic rat relat sens siz snow spy stat stress sud sympath tax tell theo transmit trap troubl try up valu vex
whistl woo
""".split()
ENDINGS = """
s es ies sses ed ied eed ing ings y ly li ally fully ously ively ably ibly ational ational tional ence ency ance ancy
encies izer izers ization izing ized izes ation ations ational ator ators alism aliti ality iveness fulness ousness
iviti ivity biliti bility ability ibility icate icated ative ativeness alize alized iciti icity ical ically ful ness
less lessness al er ers est ic ics able ible ant ants ement ments ment ent ents ion ions sion tions ou ism isms ist
ate ated iti ous ive ives ize ll e ee ology logical logies ual ial eli enci ish ward
""".split()


def changed(sentence, words):
    """As a model might have written it."""
    tokens = sentence.split(" ")
    for _ in range(draw.choice([0, 1, 2, 3, 4, 6, 9])):
        at = draw.randrange(len(tokens))
        token = tokens[at]
        match draw.randrange(10):
            case 0 | 1:
                del tokens[at]
            case 2:
                tokens[at : at + 2] = reversed(tokens[at : at + 2])
            case 3 | 4:
                tokens[at] = draw.choice(words)
            case 5:
                tokens[at] = draw.choice([token.upper(), token.lower(), token.swapcase()])
            case 6:
                mark = draw.choice([".", ",", "!", "?", ";", " -", "...", "'s", '"', ""])
                tokens[at] = re.sub(r"\W+$", "", token) + mark
            case 7:
                ending = draw.choice(["s", "ed", "ing", "e", ""])
                tokens[at] = re.sub(r"(e|ing|ed|s)?(\W*)$", rf"{ending}\2", token, count=1)
            case 8:
                tokens.insert(at, token if draw.random() < 0.4 else draw.choice(words))
            case 9:
                tokens = tokens[: draw.randint(at, len(tokens))]
        if not tokens:
            return ""
    return " ".join(tokens)


plain, stemmed = (RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=stem) for stem in (False, True))


def rouge(scorer, hypothesis, reference):
    return [float(score.fmeasure) for score in scorer.score(reference, hypothesis).values()]


def numbers(hypotheses, references):
    """BLEU, chrF, and the means of ROUGE without stems and with them."""
    both = [[rouge(scorer, *pair) for pair in zip(hypotheses, references)] for scorer in (plain, stemmed)]
    means = [[sum(column) / len(rows) for column in zip(*rows)] for rows in both]
    bleu = sacrebleu.corpus_bleu(hypotheses, [references], force=True).score
    return [bleu, sacrebleu.corpus_chrf(hypotheses, [references]).score, *means]


sentences = SENTENCES
if arguments.files:
    sentences = [line.rstrip("\n") for file in arguments.files for line in open(file, encoding="utf-8")]
vocabulary = sorted({word for sentence in sentences for word in sentence.split()})
references = (draw.sample(sentences, len(sentences)) * (arguments.pairs // len(sentences) + 1))[: arguments.pairs]
pairs = [(changed(sentence, vocabulary), sentence) for sentence in references] + ODD

stemmer = PorterStemmer()
known = set(RULES) | {word for pair in pairs for text in pair for word in re.findall(r"[a-z0-9]+", text.lower())}
built = sorted({base + ending for base in BASES for ending in ENDINGS} - known)
words = sorted(known | set(draw.sample(built, max(0, 2100 - len(known)))))

programs = ", ".join(f"{name} {version(name)}" for name in ("sacrebleu", "rouge-score", "nltk"))
source = "written for it: no data set, the licence of this repository"
if arguments.files:
    source = "from " + ", ".join(arguments.files)
lines = lambda rows: ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows)
with open(arguments.out, "w", encoding="utf-8") as file:
    file.write(f"""{{"made_by":{json.dumps(f"reference.py with {programs}; the texts are {source}")},
"corpus":{lines([numbers(*zip(*pairs))])},
"pairs":[
{lines([hypothesis, reference, numbers([hypothesis], [reference])] for hypothesis, reference in pairs)}
],
"stems":[
{lines([word, stemmer.stem(word)] for word in words)}
]}}
""")
