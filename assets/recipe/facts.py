# ruff: noqa: E501 - the lines are the text that is taught, and one wording a line reads best
"""What the guide knows about the app: for each topic the ways people ask, worded answers, and one short sentence.

Every string is a little grammar: `{a|b|}` chooses one of its parts (they nest), see `grammar.expand`.
The facts are those of the app's own help; when a key or a command changes there, change it here and train again.
"""

from __future__ import annotations

from typing import NamedTuple


class Fact(NamedTuple):
    """One topic: questions, full answers, and the answer in one sentence."""

    ask: tuple[str, ...]
    say: tuple[str, ...]
    short: str
    weight: float = 1.0


WHAT = "{what is|what's|what does it mean:|explain|tell me about|what do you mean by|can you explain|define}"
HOW = "{how do I|how can I|how to|how would I|what is the way to|show me how to|can I|I want to|I would like to}"
KEY = "{what does|what's|what is|explain|tell me about|what happens when I press|what will happen if I press}"

FACTS: dict[str, Fact] = {
    "savepoint": Fact(
        (
            f"{WHAT} {{a savepoint|savepoints|the savepoint|a save point}}",
            "{what are|explain} savepoints {|here|in this app|for}",
            "what is {in|inside|kept in} a savepoint",
            "savepoint?",
            "why {would I|should I} {use|make} {a savepoint|savepoints}",
        ),
        (
            "A savepoint is a {saved|kept} moment of {our|a} conversation. {You can|It lets you} come back to it {later|at any time} and go on"
            " {from there |}exactly as if nothing had happened. {Press F5 to make one.|F5 makes one, and F9 takes you back.}",
            "Think of a savepoint {in a game|as in a video game}: it keeps the {place where|moment at which} you were. Here it keeps the "
            "{conversation|chat}, the dice and the state of the model, so {the same next word comes|I go on with the very same word}"
            "{ after you load it|}. {Save with F5, load with F9.|Press F5 to save one.}",
            "A savepoint is a bookmark in {the|our} {chat|conversation} that remembers everything: the text, the dice and what the model has "
            "{read|computed} so far. {Press F5 to save and F9 to load.|You make one with F5 or with Ctrl+S if you want to name it.}",
        ),
        "A savepoint is a saved moment of our conversation that you can return to.",
        8,
    ),
    "save": Fact(
        (
            f"{HOW} {{save|make a savepoint|save this|save the chat|save our conversation|save my chat|save here|make a save}}",
            "{save?|how is a chat saved|which key saves|what key do I press to save|what is the key for saving|what is the shortcut for saving|I want to save my progress|can I save|which command saves|where is the save button|how does saving work|saving}",
        ),
        (
            "Press F5 {to save|for a quicksave}{ at any moment, even in the middle of a reply|}. To give {the savepoint|it} a name, press Ctrl+S or type /save "
            "{and a name|with a name, like /save before-joke}.",
            "{There are two ways.|It is easy.} F5 {is the quicksave|saves quickly}, and Ctrl+S saves under a name {that you choose|of your choice}. "
            "{The command /save does the same.|You can also type /save.|Your messages are kept anyway.}",
            "{Use|Press} F5. {It makes a savepoint right here|That makes a savepoint at this point}, and F9 brings you back to it. {For a savepoint with a name|If you want a name}, "
            "use Ctrl+S{ or /save|}.",
        ),
        "Press F5 to save, or Ctrl+S to save with a name.",
        6,
    ),
    "load": Fact(
        (
            f"{HOW} {{load|restore|go back to a savepoint|load a savepoint|load the last save|restore a savepoint|return to a savepoint|load my save}}",
            "{load?|which key loads|what is the key for loading|what is the shortcut for loading|which command loads|I want to go back to my save|how do I quickload|bring me back to my save|how does loading work|how do I get back to my savepoint|what is quickload|how do I restore|how to restore}",
        ),
        (
            "Press F9 to load the newest quicksave. {Press F9 again for|F9 again loads} the one before it. To {choose|pick} any savepoint, "
            "press Ctrl+O{ and type a part of its name|}.",
            "F9 is the quickload: it takes you back to the {last|newest} savepoint made with F5. {For others|For a named one}, type /load and the name, or "
            "{pick one with Ctrl+O|look at the tree with Ctrl+T}.",
            "{Press F9.|With F9.} {You are then back at|It brings back} your newest quicksave, {and nothing is lost|and nothing else is lost}: the branch that you leave stays in the tree.",
        ),
        "Press F9 to load the newest quicksave, or Ctrl+O to pick any savepoint.",
        5,
    ),
    "f5": Fact(
        (f"{KEY} {{F5|f5|the F5 key|F5 key}}", "{F5?|what does F5 do|what is F5 for|f5 does what|why F5|what's F5 do}"),
        (
            "F5 is the quicksave. It makes a savepoint {right here|at this very moment}, {even in the middle of a reply|also while I am still writing}. F9 takes you back to it.",
            "F5 saves. {It keeps this moment of the conversation as a savepoint|It makes a savepoint of this moment}, and F9 loads it again. {The last ten quicksaves are kept.|It works in mid-reply too.}",
            "When you press F5, {forkpoint makes a quicksave|the conversation is quicksaved}. {You can return to it|Return to it} with F9. {The last ten are kept.|It works even while I am writing.}",
        ),
        "F5 makes a quicksave, and F9 loads it.",
        6,
    ),
    "f9": Fact(
        (f"{KEY} {{F9|f9|the F9 key|F9 key}}", "{F9?|what does F9 do|what is F9 for|f9 does what|why F9|what's F9 do}"),
        (
            "F9 is the quickload. It takes you back to the newest quicksave. {Press it again for the one before.|F9 again goes to the one before.}",
            "F9 loads {the newest savepoint that you made with F5|your newest quicksave}. {If you press it again, you get|Press F9 again for} the one before. {Nothing is lost: the branch that you leave stays in the tree.|}",
            "When you press F9, {forkpoint loads your last quicksave|you go back to your last quicksave} and {we go|the chat goes} on from there {as if nothing had happened|exactly as before}.",
        ),
        "F9 loads the newest quicksave.",
        5,
    ),
    "fork": Fact(
        (
            f"{HOW} {{fork|make a fork|fork a chat|fork this|fork here|fork the conversation|make a branch|start a new branch|branch off}}",
            "{fork?|which key forks|can I fork|what is the key for forking|which command forks|I want to try another way|how do I split the conversation|how do I make a second branch|how does forking work|how do forks work|how to fork|forking|what's the fork command|how is a fork made}",
        ),
        (
            "{Move to|Focus} a reply and press f, or type /fork. {A new branch starts there|That starts a new branch at this point}, and the old one stays {as it was|untouched}.",
            "Type /fork{, or focus a reply and press f|}. {You get|This gives you} a new branch that shares everything up to that point. {The old branch stays in the tree.|Look at both with Ctrl+T.}",
            "To fork, {select|focus} a reply and press f. {You can also type /fork.|The command /fork does the same.} {From there|After that} you can {try another way|say something else}, and {both branches are kept|the first branch is kept too}.",
        ),
        "Focus a reply and press f, or type /fork.",
        8,
    ),
    "what-fork": Fact(
        (
            f"{WHAT} {{a fork|forks|forking|fork}}",
            "what {does fork mean|is forking for|happens when I fork}",
            "why {would I|should I} fork{ a chat|}",
        ),
        (
            "A fork is a point where the conversation {splits into two|takes a second way}. You {try another question|go another way}, and the first branch stays {as it was|safe}. {Press f on a reply or type /fork.|Type /fork to make one.}",
            "To fork means to start a new branch {from a point in the conversation|from some turn}. {Both branches share|The two share} what came before, {and each goes on by itself|and then each goes its own way}.",
        ),
        "A fork starts a second branch of the conversation from one point.",
        2,
    ),
    "branch": Fact(
        (
            f"{WHAT} {{a branch|branches|the branches|branching}}",
            "what are branches{ for| here|}",
            "how many branches can I have",
        ),
        (
            "A branch is one {way|path} through the conversation. {When you fork, a second branch starts|A fork starts a new one}, and {both stay in the tree|both are kept}. {Press Ctrl+T to see them.|You see them with Ctrl+T.}",
            "{Each|A} branch is {a line of turns|one line of the story of our chat}. {You can have as many as you like.|You may have many.} Branches share the turns before the fork{, so they cost little space|}. {Ctrl+T shows them all.|}",
        ),
        "A branch is one path through the conversation.",
        2,
    ),
    "turn": Fact(
        (f"{WHAT} {{a turn|turns}}", "what does t4 mean{ in the tree|}", "what counts as a turn"),
        (
            "A turn is one step of {our|the} conversation: {you say something, and I answer|a message or its reply}. {With /back you go one turn back.|The tree shows the turns with a t, like t4.}",
            "{We take turns: you write, and then I write.|In a chat we take turns.} {The tree counts them, like t2 or t4.|To go one turn back, type /back.}",
        ),
        "A turn is one step of the conversation.",
    ),
    "dice": Fact(
        (
            f"{WHAT} {{the dice|dice|dices}}",
            "{what are the dice|what are dice here|why dice|why do you speak of dice|what are these dice|what is meant by dice}",
            "why {do I get|is it} the same {answer|reply|text} {again|after loading|every time}",
        ),
        (
            "The dice are the random numbers that choose my next word. A savepoint keeps the dice too, so {the same words come again|after loading I go on with the same words}. {Press r on a reply to roll new dice.|For new dice, press r on a reply.}",
            "{I choose each word with a bit of chance, and the dice are that chance.|Each of my words is chosen by a throw of dice.} {They are saved with the savepoint|The savepoint keeps them}, so a loaded chat goes on just the same. {To get another answer, press r.|Regenerate with r for new dice.}",
        ),
        "The dice are the random numbers that choose my words, and they are saved too.",
        2,
    ),
    "seed": Fact(
        (f"{WHAT} {{the seed|a seed|--seed|seeds}}", f"{HOW} {{set the seed|use a seed|choose a seed}}"),
        (
            "The seed starts the dice. On the command line, {give|use} --seed and a number{, or -s for short|}: {the same seed gives the same reply|with the same seed you get the same reply}.",
            "A seed is a number that {sets|fixes} the dice. {Use|Give} forkpoint run with --seed{ or -s|}, and {the reply will be the same each time|you get the same reply each time}.",
        ),
        "A seed is a number that sets the dice.",
    ),
    "tree": Fact(
        (
            f"{WHAT} {{the tree|tree|the tree panel|Ctrl+T|ctrl-t}}",
            f"{HOW} {{see the tree|open the tree|see my branches|see all savepoints|show the tree|see the branches|see all my savepoints}}",
            "what does {Ctrl+T|ctrl t|Ctrl-T} do",
            "where {are|do I see} {my branches|my savepoints|the savepoints}",
        ),
        (
            "Press Ctrl+T {to see the tree|for the tree}. It shows all branches and savepoints{ of this conversation|}. {Move|Walk} with the arrow keys, and press Enter to go to one.",
            "The tree shows {every branch and every savepoint|how the branches and savepoints hang together}. {Ctrl+T opens and closes it|Open it with Ctrl+T or /tree}. {Looking at it changes nothing; only Enter restores.|Nothing changes until you press Enter.}",
        ),
        "The tree shows your branches and savepoints; open it with Ctrl+T.",
        3,
    ),
    "picker": Fact(
        (
            f"{HOW} {{find a savepoint|pick a savepoint|search my savepoints|choose a savepoint|find an old savepoint|open another savepoint}}",
            "what does {Ctrl+O|ctrl o|Ctrl-O} do",
            "what is {Ctrl+O|the picker|the savepoint picker}",
        ),
        (
            "Press Ctrl+O. {It opens a list of your savepoints|That opens the savepoint picker}: type {a few letters|a part} of the name, and press Enter{ to load it|}.",
            "Ctrl+O opens the savepoint picker. {Type some letters of the name, and the list gets shorter.|Type a part of the name to search.} Enter loads {the chosen one|it}.",
        ),
        "Ctrl+O opens the savepoint picker.",
    ),
    "name": Fact(
        (
            f"{HOW} {{name a savepoint|give a savepoint a name|rename a savepoint|name this|name it|give it a name|change the name of a savepoint}}",
            "what does {Ctrl+S|ctrl s|Ctrl-S|/name|the n key} do",
            "what names {may|can} a savepoint have",
        ),
        (
            "Press Ctrl+S to save with a name. {To name a reply that is already there, focus it and press n.|You can also focus a reply and press n, or type /name.} {Each name is used only once.|Names are unique.}",
            "{Ctrl+S asks for a name and saves.|With Ctrl+S you save under a name.} The command /name {does it too|names the place where you are}, and the key n names a focused reply. {On the command line, use forkpoint rename.|}",
        ),
        "Press Ctrl+S to save with a name, or n on a focused reply.",
    ),
    "undo": Fact(
        (
            f"{HOW} {{undo|undo that|undo this|take that back|take it back|undo a mistake|undo the last thing|undo a delete|undo a load}}",
            "what does {/undo|undo|/redo|redo} do",
            "{I made a mistake|oops|I deleted the wrong thing|I loaded the wrong savepoint|can I undo}",
        ),
        (
            "Type /undo. It takes back the last action, {be it a turn, a load, a fork, a delete or a rename|such as a turn, a load or a delete}. {/redo brings it back.|With /redo you do it again.}",
            "{No problem.|Do not worry.|That is easy.} Type /undo {and the last action is taken back|to take back the last action}, even after a restart. {If you change your mind, type /redo.|/redo does it again.}",
        ),
        "Type /undo to take back the last action.",
        2,
    ),
    "back": Fact(
        (
            f"{HOW} {{go back|go one turn back|go back one turn|rewind|go to an earlier turn|go back in time|go back a few turns}}",
            "what does {/back|/rewind|rewind|Esc Esc|escape twice} do",
        ),
        (
            "Type /back to go one turn back. To go further, press Esc twice on an empty prompt: {the rewind picker opens|that opens the rewind picker}, and nothing changes until you press Enter.",
            "/back goes one turn back, and /rewind lets you choose {an earlier turn|a turn}. {What came after stays in the tree.|Nothing is lost: what you leave stays in the tree.}",
        ),
        "Type /back to go one turn back.",
        1.5,
    ),
    "regenerate": Fact(
        (
            f"{HOW} {{get another answer|regenerate|get a different answer|get another reply|try again|reroll|get a new reply|roll the dice again}}",
            "what does {/regen|the r key|r|regenerate} do",
            "{your answer is bad|I do not like this answer|I want another answer|give me another answer}",
        ),
        (
            "Focus the reply and press r{, or type /regen|}. I {roll new dice and write it again|then answer again with new dice}. The first reply is kept: {move between them with [ and ]|the keys [ and ] switch between them}.",
            "Press r on {a|the} reply, or type /regen. {You get|That gives} a new reply with new dice, beside the old one. {Use [ and ] to switch between them.|The old one stays.}",
        ),
        "Press r on a reply, or type /regen, to get another answer.",
        1.5,
    ),
    "edit": Fact(
        (
            f"{HOW} {{edit my message|change my message|edit a message|correct my message|fix a typo|change what I said|edit a prompt}}",
            "what does {/edit|the e key|e} do",
        ),
        (
            "Focus the reply and press e, or type /edit. {Your message comes back for a change|You can then change your message}, and sending it starts a new branch. The old one stays.",
            "{Press e on the reply, or type /edit.|Type /edit, or press e on the reply.} {Change your words and press Enter.|Then change the text and send it.} {It becomes a branch of its own|A second branch starts}, so nothing is overwritten.",
        ),
        "Press e on a reply, or type /edit, to change your message.",
    ),
    "siblings": Fact(
        (
            "what do {the keys |}[ and ] do",
            f"{HOW} {{switch between replies|see the other reply|switch between answers|see the other answers|compare replies}}",
            "what does 2/3 mean{ beside a message|}",
        ),
        (
            "When there are several replies {at one point|to one message}, the keys [ and ] switch between them. {A mark like 2/3 shows which one you see.|The mark 2/3 means the second of three.}",
            "{Focus a reply and press [ or ].|Press [ or ] on a focused reply.} You then see the one before or the next one{ of the replies to the same message|}.",
        ),
        "The keys [ and ] switch between replies.",
    ),
    "stop": Fact(
        (
            f"{HOW} {{stop you|stop the reply|stop|stop a reply|interrupt you|make you stop|stop writing|cancel}}",
            "what does {Esc|escape|Ctrl+C|ctrl c|Ctrl-C} do",
        ),
        (
            "Press Esc or Ctrl+C {while I write|while I am writing}, and I stop. {What I wrote so far is kept|My words so far are kept}, and /continue goes on from there.",
            "{Esc stops me.|Press Esc.} Ctrl+C stops me too. {When I am not writing|At other times}, Ctrl+C copies what you selected, clears your draft, or, pressed again, quits.",
        ),
        "Press Esc or Ctrl+C to stop me.",
        1.5,
    ),
    "continue": Fact(
        (
            f"{HOW} {{continue a reply|let you go on|make you go on|continue|go on after a stop|make you continue}}",
            "what does /continue do",
        ),
        (
            "Type /continue, and I go on {with my reply|at the very next word}{, exactly where I stopped|}.",
            "{Use|Type} /continue. My reply then goes on {where it was stopped|from where it stopped}{, with the same dice|}.",
        ),
        "Type /continue, and I go on with my reply.",
    ),
    "files": Fact(
        (
            "where are {my files|the files|my chats|my savepoints stored|my conversations|the savepoints kept|my savepoints on disk|my data}",
            "where {is everything|is my data|is my chat|is it all} {saved|stored|kept}",
            "{where do you keep my files|where are files|in which folder are my chats|where can I find my chats|in which file is my chat|where do my savepoints go|where on disk are my chats|what is tree.db|where are things stored|which files do you write}",
            "where does {forkpoint|this app|the app} {save|store|keep|put} {things|files|my chats|its files}",
        ),
        (
            "Your {chats|conversations} are in your user data folder, in a file named tree.db. {The large bundles, which can be rebuilt, lie|The computed state, which can be made again, lies} in the cache folder. {Type /stats to see more.|forkpoint stats says more.}",
            "There are two places. The data folder holds tree.db with your texts and savepoints; {keep it safe|that one is precious}. The cache folder holds bundles {that can be computed again|which can always be rebuilt}, {so you may empty it|so it may be emptied}.",
            "All of it is on your own {computer|disk}: texts and names in tree.db in the data folder, and computed state in the cache folder. {The variables FORKPOINT_DATA_DIR and FORKPOINT_CACHE_DIR set other places.|With FORKPOINT_DATA_DIR and FORKPOINT_CACHE_DIR you can choose other places.}",
        ),
        "Your chats are in tree.db in the data folder, and the cache folder holds what can be rebuilt.",
        6,
    ),
    "autosave": Fact(
        (
            "{do I have to save|do I need to save|is my chat saved|is it saved|is everything saved automatically|is there an autosave|do you save automatically|what if I forget to save|must I save}",
        ),
        (
            "{No need to worry:|You do not have to:} every message is saved {by itself|automatically}. {A savepoint is only a mark to which you can return.|Make a savepoint with F5 where you want to come back to.}",
            "Everything you send is saved at once{, and so is my reply|}. {F5 makes a point to return to.|Press F5 only where you want to return to later.}",
        ),
        "Every message is saved automatically.",
    ),
    "how-many": Fact(
        (
            "{how many savepoints can I have|how many savepoints can I make|is there a limit for savepoints|how many quicksaves are kept|do old savepoints get lost}",
        ),
        (
            "You {can|may} have as many savepoints as you like. {Of the quicksaves made with F5, the last ten are kept.|The last ten quicksaves are kept, and named ones stay.}",
            "There is no fixed limit. {Named savepoints stay until you delete them|Those with a name stay}, and the last ten quicksaves are kept{ too|}.",
        ),
        "As many as you like; the last ten quicksaves are kept.",
    ),
    "cache": Fact(
        (
            f"{WHAT} {{the cache|a bundle|bundles|the cache folder|the bundles}}",
            "what {happens if I delete|if I empty|if I lose} the cache",
            "{can|may|should} I {delete|empty|clear|purge} the cache",
        ),
        (
            "The cache holds what the model has computed. You {may|can} delete it: {nothing is lost|your words stay}, and {the state is computed again|a savepoint is then computed again} from its tokens, bit for bit. {It only takes a little longer.|}",
            "A bundle is the computed state of a savepoint, kept in the cache{ folder|}. {If it is gone, it is rebuilt from the text|If you delete it, I read the tokens again}, and the result is exactly the same.",
        ),
        "The cache can be deleted: everything in it is computed again.",
        1.5,
    ),
    "crash": Fact(
        (
            "what {happens|if|happens then} if {the app crashes|my computer crashes|the power goes out|I kill it|the program is killed|I close the window}",
            "{is my chat safe|do I lose my chat|will I lose anything|can I lose my messages|are my messages safe|what if it crashes}{ after a crash|}",
        ),
        (
            "{Nothing that you sent is lost.|Your messages are safe.} {Every message is written to disk|Each message is saved} before I answer. Start forkpoint again: it shows the conversation and offers to go on {with the reply|where we were}.",
            "{Do not worry.|No need to worry.} Every message is saved when you send it, and my reply is saved as I write. {After a crash|At the next start} you see the chat again, and {I can go on at the very next word|we can go on}.",
        ),
        "Nothing that you sent is lost; start again and go on.",
        1.5,
    ),
    "exact": Fact(
        (
            "{is it really exactly the same|what does bit for bit mean|what does bit-exact mean|what is the promise|how exact is a restore|is a restored chat the same}",
            "{what is special about|what makes} {forkpoint|this app}{ special|}",
            "why is {forkpoint|this app} {special|different|good}",
        ),
        (
            "A restored conversation goes on exactly as if nothing had happened: the same numbers, the same dice, the same next word, bit for bit. {That holds even after a restart or when the cache is gone.|That is the promise of forkpoint.}",
            "{The promise is this:|Here is the promise:} restored, uninterrupted and recomputed are all the same, bit for bit. {You can prove it with forkpoint verify.|The command forkpoint verify checks it.}",
        ),
        "A restored chat goes on exactly as if nothing had happened.",
        1.5,
    ),
    "verify": Fact(
        (
            f"{WHAT} {{verify|forkpoint verify|the verify command}}",
            "what does {verify|forkpoint verify} do",
            f"{HOW} {{check a savepoint|verify a savepoint|prove it}}",
        ),
        (
            "The command forkpoint verify computes a savepoint again from its tokens and compares the digests. It says PASS, or {it shows|shows} the first difference.",
            "Type forkpoint verify and the name of a savepoint in your shell. {It reads all the tokens again|Everything is computed again} and {must find|compared with} the same digest: {then it says PASS|PASS means that they are equal}.",
        ),
        "forkpoint verify computes a savepoint again and compares it.",
    ),
    "commands": Fact(
        (
            "{what commands are there|which commands are there|list the commands|what are the commands|what slash commands are there|commands?|show me the commands|what can I type|which commands do you know}",
            f"{WHAT} {{slash commands|the commands|a slash command}}",
        ),
        (
            "Type / and you see them all. {The most useful are|Some of them are} /save, /load, /fork, /tree, /undo, /regen and /help.",
            "{There are many, such as|Here are some:} /save and /load, /fork, /tree, /name, /undo and /redo, /back, /regen, /edit, /new, /help and /quit. {Type / to see the list.|A / in the prompt shows them.}",
        ),
        "Type / to see all commands, such as /save, /load, /fork and /help.",
        2,
    ),
    "keys": Fact(
        (
            "{what keys are there|which keys are there|list the keys|what are the shortcuts|what are the keys|keys?|keyboard shortcuts|which keys can I use|tell me the keys|what are the hotkeys}",
        ),
        (
            "F5 saves and F9 loads. Ctrl+S saves with a name, Ctrl+T shows the tree, Ctrl+O finds a savepoint, Ctrl+P opens the palette, and F1 is help. Esc stops me.",
            "{The main keys are these:|The most useful keys:} F5 to save, F9 to load, Ctrl+T for the tree, Ctrl+O for savepoints, Ctrl+P for the palette, Esc to stop, and F1 for help.",
        ),
        "F5 saves, F9 loads, Ctrl+T shows the tree, and F1 is help.",
        2,
    ),
    "reply-keys": Fact(
        (
            "{what can I do with a reply|which keys work on a reply|what can I press on a reply|what keys work on a focused reply|how do I use a focused reply}",
        ),
        (
            "On a focused reply, r regenerates, e edits, f forks, y copies and n names. The keys [ and ] switch between siblings.",
            "Focus {a|the} reply, then press r for another answer, e to edit, f to fork, y to copy, or n to name it.",
        ),
        "On a focused reply, r regenerates, e edits, f forks, y copies and n names.",
    ),
    "copy": Fact(
        (f"{HOW} {{copy a reply|copy your answer|copy text|copy this|copy that}}", "what does {the y key|y|/copy} do"),
        (
            "Focus the reply and press y, or type /copy. {If you selected some text, Ctrl+C copies it.|Ctrl+C copies selected text.}",
            "Press y on a focused reply{ to copy it|}. For a part of it, select the text and press Ctrl+C.",
        ),
        "Press y on a focused reply to copy it.",
    ),
    "help": Fact(
        (
            "{where is the help|how do I get help|what does F1 do|what is F1|is there a manual|where can I read more|is there help|how do I learn more}",
            "what does {/help|F1} do",
            "{I need help|help me|help|help please|can you help me|I am lost|I'm lost|I am new here|I am stuck}",
        ),
        (
            "Press F1 or type /help for {the help|help}. {You can also ask me about saving, forking and loading.|Or ask me: I know a little about saving, loading and forking.}",
            "{Gladly.|Of course.|Sure.} F5 saves, F9 loads, /fork starts a branch, and F1 shows all the help. {What do you want to do?|What would you like to try?}",
        ),
        "Press F1 or type /help.",
        2,
    ),
    "palette": Fact(
        (f"{WHAT} {{the palette|the command palette|Ctrl+P}}", "what does {Ctrl+P|ctrl p|Ctrl-P} do"),
        (
            "Ctrl+P opens the palette: a list of everything that you can do. Type a few letters, and press Enter {to do it|to run it}.",
            "The palette lists all actions. {Open it with Ctrl+P|Ctrl+P opens it}, type {a part of the name|some letters}, and press Enter.",
        ),
        "Ctrl+P opens the palette, a list of everything you can do.",
    ),
    "history": Fact(
        (
            f"{HOW} {{search my prompts|find an old prompt|search my history|find an earlier message|reuse a prompt}}",
            "what does {Ctrl+R|ctrl r|Ctrl-R} do",
        ),
        (
            "Press Ctrl+R to search {your earlier prompts|the history of your prompts}. {Type a part of it, then press Enter.|Type some letters of it.}",
            "Ctrl+R searches what you wrote before. {Type a few letters and choose one.|}",
        ),
        "Ctrl+R searches your earlier prompts.",
    ),
    "newline": Fact(
        (
            f"{HOW} {{make a new line|write several lines|type a new line|write more than one line|add a line}}",
            "what does {Ctrl+J|Shift+Enter|Enter|the Enter key} do",
            "how do I send{ a message|}",
        ),
        (
            "Enter sends the message. Ctrl+J makes a new line, and so does Shift+Enter {where the terminal can tell it apart|in many terminals}.",
            "{Press Ctrl+J for a new line.|For a new line, press Ctrl+J.} Enter sends{ what you wrote|}.",
        ),
        "Enter sends, and Ctrl+J makes a new line.",
    ),
    "status": Fact(
        (
            "what {does the status line show|is the line at the bottom|do the numbers at the bottom mean|is the status line|does ctx mean|does tok/s mean|does reused mean|does saved mean|do the numbers below mean}",
        ),
        (
            "The status line shows how full the context is, how many tokens a second I write, how many tokens were reused, and whether all is saved.",
            "At the bottom you see the context gauge, my speed in tokens a second, what was reused instead of computed, and the size of the save.",
        ),
        "The status line shows the context, the speed, what was reused and what is saved.",
    ),
    "context": Fact(
        (
            f"{WHAT} {{the context|a context|the context length|the context gauge|ctx}}",
            "how {long can we talk|much can you remember|long is your memory|long can a chat be|big is your context}",
            "what happens when the context is full",
        ),
        (
            "The context is {all that I can see at once|what I can read at one time}: for me it is 2048 tokens, {some|about} 1500 words. {The gauge at the bottom shows how full it is.|When it is full, start a new branch.}",
            "I can read 2048 tokens at once, and that is my context. {When it is full, forkpoint says so; go back or start anew, and the old chat stays.|The gauge in the status line shows how much is used.}",
        ),
        "The context is what I can read at once: 2048 tokens.",
        1.5,
    ),
    "token": Fact(
        (f"{WHAT} {{a token|tokens}}", "how {big|long} is a token", "what are tokens"),
        (
            "A token is a piece of text: a word, {a part of a word, or a sign|or a part of one}. I read and write one token after another. {The command forkpoint tokenize shows them.|}",
            "Tokens are the little pieces that I read and write, {often a word or a part of a word|mostly words and parts of words}. {Many short words are one token.|Rare words need several.}",
        ),
        "A token is a small piece of text, often a word or a part of one.",
    ),
    "kv": Fact(
        (f"{WHAT} {{the KV cache|KV|prefill|the prefix|logits|a digest|decode}}",),
        (
            "{That is a word from inside the engine.|This is about the inside of the engine.} {While I read, I keep notes about each token, called KV|Prefill is reading your text, and decode is writing mine}; {a savepoint keeps them, so nothing is read twice|the notes that I keep are called KV}.",
            "When I read text, I compute numbers for each token and keep them. {They are called KV.|The name for them is KV.} A savepoint stores them, so that loading is fast.",
        ),
        "KV is what I compute for each token while I read.",
    ),
    "sampler": Fact(
        (
            f"{WHAT} {{the sampler|the temperature|temperature|temp|top-k|top-p|min-p|the repeat penalty}}",
            f"{HOW} {{change the temperature|set the temperature|make you more creative|make you less random|change the sampler settings}}",
            "what does {/set|--temp} do",
        ),
        (
            "The temperature says how bold the dice may be. {Low values are calm and high values are wild.|At 0 I always take the likeliest word.} {Change it with /set temperature 0.5, say.|You change it with /set, like /set temperature 0.5.}",
            "The sampler chooses my next word. Its temperature makes me calm or wild: {with /set temperature 0 I always take the likeliest word|at 0 there is no chance at all}. {On the command line it is --temp.|Use /set to change it.}",
        ),
        "The temperature says how much chance there is in my words; change it with /set.",
        1.5,
    ),
    "system": Fact(
        (
            f"{WHAT} {{a system prompt|the system prompt|the system message}}",
            f"{HOW} {{set a system prompt|change the system prompt|give you a role|tell you how to behave}}",
            "what does /system do",
        ),
        (
            "A system prompt tells me how to behave. {Type /system and your text|Set it with /system}, for example: /system You are a pirate.",
            "{With /system you tell me who I should be.|The command /system sets it.} {It stands before all our messages.|I read it before your messages.} On the command line it is -sys.",
        ),
        "A system prompt tells me how to behave; set it with /system.",
    ),
    "model": Fact(
        (
            f"{HOW} {{use another model|load another model|change the model|switch the model|use a bigger model|open my own model|use my own model}}",
            "{what models can I use|which models work|what is GGUF|which model files work|what does /model do|can I use a better model|what is a GGUF file}",
        ),
        (
            "Start forkpoint with -m and a model file, or type /model. The file must be a GGUF of the Llama kind. {A bigger model is wiser than I am.|Most are much smarter than I am.}",
            "{You can use your own GGUF file:|Any GGUF file of the Llama kind will do:} {run forkpoint -m FILE|start with forkpoint -m and the file}. {The command /model changes it in the chat.|Or type /model.}",
        ),
        "Start forkpoint with -m and a GGUF file, or type /model.",
        2,
    ),
    "new": Fact(
        (
            f"{HOW} {{start a new chat|start over|begin a new conversation|start anew|open a new chat|start a new conversation}}",
            "what does /new do",
        ),
        (
            "Type /new to start a new conversation. {The old one is kept|This one stays}, and you can come back to it {with Ctrl+O|at any time}.",
            "{Use|Type} /new. A fresh conversation begins, and {nothing of this one is lost|this one is kept}.",
        ),
        "Type /new to start a new conversation.",
    ),
    "delete": Fact(
        (
            f"{HOW} {{delete a savepoint|delete a branch|delete this chat|remove a savepoint|delete something|delete a conversation}}",
            "what does {/delete|forkpoint delete} do",
        ),
        (
            "Type /delete, or use forkpoint delete and a name in the shell. {If it was a mistake, /undo brings it back.|You can take it back with /undo.}",
            "Use /delete. It removes this branch from the tree, and /undo brings it back{ if you did not mean it|}.",
        ),
        "Type /delete, and /undo brings it back.",
    ),
    "quit": Fact(
        (
            f"{HOW} {{quit|leave|exit|close the app|close forkpoint|get out|end the chat}}",
            "what does /quit do",
            "{I have to go|I want to quit|how do I exit}",
        ),
        (
            "Type /quit, or press Ctrl+C {twice on an empty prompt|twice}. {All is saved, and we go on next time.|Next time the chat opens where you left it.}",
            "/quit ends the app. {Do not worry about saving: the chat opens again where you left it.|Your chat is saved, so you can go on later.}",
        ),
        "Type /quit; the chat opens again where you left it.",
    ),
    "resume": Fact(
        (
            f"{HOW} {{go on tomorrow|continue later|open my old chat|come back to this chat|find my chat again|resume a chat|resume}}",
            "{will you remember this tomorrow|what happens when I start again|is the chat still here tomorrow|what does --resume do}",
        ),
        (
            "Just start forkpoint again: it opens where you left it. {With --resume you pick from a list.|To pick another chat, use forkpoint --resume.}",
            "{Start the app again, and the chat is there.|When you start again, the chat is still there.} We go on exactly where we stopped. {For another one, use --resume or Ctrl+O.|}",
        ),
        "Start forkpoint again, and it opens where you left it.",
        1.5,
    ),
    "cli": Fact(
        (
            "{how do I use the command line|what can I do in the shell|how do I use it in a script|what does forkpoint run do|is there a command line|can I use it without the screen|how do I use forkpoint run|which shell commands are there}",
        ),
        (
            "In the shell, forkpoint run and a prompt prints one reply. {There are also|Others are} forkpoint list, tree, show, rename, delete, verify, stats and models.",
            'Try forkpoint run "Tell me a story." {It prints one reply and ends.|That prints the reply, without a screen.} With --save NAME it is kept, and with --at NAME it starts from a savepoint.',
        ),
        "In the shell, forkpoint run and a prompt prints one reply.",
        1.5,
    ),
    "nosave": Fact(
        (
            "{can I chat without saving|is there a private mode|what does --no-save do|how do I chat without a trace|is there an incognito mode|how do I turn off saving}",
        ),
        (
            "Start with forkpoint --no-save. Then nothing {at all |}is written to disk.",
            "{Yes:|Yes, there is:} forkpoint --no-save writes nothing. {When you quit, the chat is gone.|The chat ends when you quit.}",
        ),
        "Start with forkpoint --no-save, and nothing is written.",
    ),
    "privacy": Fact(
        (
            "{do you send my data anywhere|is this private|do you need the internet|are you online|does it work offline|who can read my chat|is my data safe|do you use the internet|is this chat private}",
        ),
        (
            "I run on your own computer. {Nothing that you write leaves it.|Your words stay here.} {I need no internet.|No internet is needed.}",
            "{It is private.|All of it stays with you.} The model and your chats are on your own {disk|computer}, and I do not use the internet.",
        ),
        "I run on your own computer, and your words stay there.",
        1.5,
    ),
    "app": Fact(
        (
            "what is {forkpoint|this app|this program|this|this thing}",
            "what {can I do here|is this app for|does forkpoint do|does this app do|is forkpoint for|can forkpoint do}",
            "{tell me about|explain} {forkpoint|this app|this program}",
            "how does {forkpoint|this app|this|it} work",
        ),
        (
            "Forkpoint {is a chat with savepoints|gives a chat savepoints}, like a game. {You can save, fork and load a conversation at any point|Save, fork and load any moment}, and it goes on exactly as if nothing had happened.",
            "This is forkpoint. You chat with a model on your own computer, and you can save any moment with F5, go back with F9, or fork to try another way. {Nothing is lost.|All branches are kept.}",
        ),
        "Forkpoint is a chat with savepoints, like a game.",
        4,
    ),
    "tour": Fact(
        (
            "{what should I try first|how do I start|where do I begin|what should I do|give me a tour|show me around|what can I try|what now|how do I begin|what should I ask you}",
        ),
        (
            "Try this: ask me for a story, press F5, and ask for something else. Then press F9, and you are back at the story. {With /fork both ways stay.|Ctrl+T shows the tree.}",
            "{Here is a small tour.|Let us try it.} Tell me your name. Press F5. Say something silly. Press F9: {it never happened|you are back}. {Ctrl+T shows what we did.|Then look at the tree with Ctrl+T.}",
        ),
        "Ask me for a story, press F5, say something else, and press F9.",
        2,
    ),
    "f-confuse": Fact(
        (
            "{what is the difference between F5 and F9|F5 or F9|F5 and F9|what are F5 and F9|what do F5 and F9 do|what is the difference between saving and forking|is a savepoint a branch}",
        ),
        (
            "F5 saves this moment, and F9 loads the newest save. {A fork is different: it starts a new branch.|So F5 first, then F9.}",
            "F5 makes a savepoint, and F9 brings you back to it. {A branch is a path; a savepoint is a point on it.|With a fork you start another path from such a point.}",
        ),
        "F5 saves, and F9 loads.",
        1.5,
    ),
    "theme": Fact(
        (
            f"{HOW} {{change the colours|change the theme|get a dark theme|make it dark|change how it looks}}",
            "what does /theme do",
        ),
        (
            "Type /theme {and choose one|to choose other colours}.",
            "{With /theme.|Use /theme.} It changes the colours of the screen.",
        ),
        "Type /theme to change the colours.",
        0.6,
    ),
    "stats": Fact(
        (
            f"{HOW} {{see how much space it takes|see the statistics|see the stats}}",
            "what does {/stats|forkpoint stats} do",
            "how much space {do savepoints take|does a savepoint need}",
        ),
        (
            "Type /stats{, or forkpoint stats in the shell|}. {It shows how much space your savepoints take.|You see the space that everything takes.} Branches share what they have in common.",
            "/stats shows it. A savepoint {is small|takes little space}, because branches share their common part and the rest is compressed.",
        ),
        "Type /stats to see how much space is used.",
    ),
    "queue": Fact(
        (
            "{can I type while you write|can I write while you answer|what happens if I type while you are writing|can I type ahead}",
        ),
        (
            "Yes. {Type and press Enter|Just type}: your message waits until I am done{, and then I answer it|}.",
            "{Of course.|Yes, you can.} The next message is queued and sent when my reply ends.",
        ),
        "Yes, your message waits until I am done.",
        0.7,
    ),
    "refs": Fact(
        (
            "{how do I name a savepoint in the shell|what is a REF|what does REF mean|what does intro~2 mean|how do I say two turns back}",
        ),
        (
            "A REF says which point you mean: a name, the start of an id, or a name with ~ and a number, like intro~2 for two turns back.",
            "REF stands for a savepoint: its name or the first signs of its id. With ~2 behind it you mean two turns back.",
        ),
        "A REF is a name or an id of a savepoint.",
        0.7,
    ),
}

for command, effect in {
    "/save": "makes a savepoint here, with a name if you give one",
    "/load": "loads the savepoint that you name",
    "/fork": "starts a new branch here",
    "/tree": "shows the tree of branches and savepoints",
    "/name": "gives this point a name",
    "/undo": "takes back the last action",
    "/redo": "does again what you have undone",
    "/back": "goes one turn back",
    "/rewind": "lets you pick an earlier turn",
    "/regen": "writes the reply again with new dice",
    "/edit": "lets you change your message",
    "/continue": "lets me go on with my reply",
    "/delete": "removes a branch, and /undo brings it back",
    "/system": "sets the system prompt",
    "/set": "changes a setting such as the temperature",
    "/model": "opens another model",
    "/stats": "shows numbers about space and speed",
    "/copy": "copies the reply",
    "/theme": "changes the colours",
    "/new": "starts a new conversation",
    "/help": "shows the help",
    "/quit": "ends the app",
}.items():
    FACTS["command " + command] = Fact(
        (
            f"what does {command} do",
            f"{WHAT} {command}",
            f"{command}?",
            f"what is {command} for",
            f"what happens when I type {command}",
        ),
        (
            f"{{The command|}} {command} {effect}.",
            f"{{If|When}} you type {command}, {{forkpoint|the app}} {effect}."
            if "me go" not in effect and "you" not in effect.split()[1:2]
            else f"The command {command} {effect}.",
        ),
        f"The command {command} {effect}.",
        0.35,
    )
