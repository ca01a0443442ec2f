// Every page's script: small parts that know nothing of one another but what is imported here.
import { follow } from "./actions.js";
import { listen } from "./keys.js";
import { start, refresh } from "./live.js";
import { openLogs } from "./log.js";
import { theme } from "./theme.js";
import { paint, tick } from "./times.js";

paint(document);
tick();
theme(document.getElementById("theme"));
follow(refresh);
listen(refresh);
openLogs(refresh);
start(document.getElementById("pill"));
