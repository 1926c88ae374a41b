import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;

import software.amazon.event.ruler.Machine;

/** Answers pairs of lines (a rule, an event) with yes, no, mixed (fresh machines disagree) or refused. */
public class AskRuler {
    private static final int MACHINES = 3;

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        PrintStream out = new PrintStream(System.out, true, "UTF-8");
        for (String rule = in.readLine(); rule != null; rule = in.readLine()) {
            out.println(answer(rule, in.readLine()));
        }
    }

    private static String answer(String rule, String event) {
        int matched = 0;
        try {
            for (int at = 0; at < MACHINES; at++) {
                Machine machine = new Machine();
                machine.addRule("rule", rule);
                matched += machine.rulesForJSONEvent(event).isEmpty() ? 0 : 1;
            }
        } catch (Exception exc) {
            return "refused";
        }
        return matched == 0 ? "no" : matched == MACHINES ? "yes" : "mixed";
    }
}
