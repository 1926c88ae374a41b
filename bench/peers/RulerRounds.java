import java.lang.management.ManagementFactory;
import java.lang.management.ThreadMXBean;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Scanner;

import software.amazon.event.ruler.Machine;

/** One pass of event-ruler over the events for each line on standard input; what bench/match.py asks (see bench/match_peers.py). */
public class RulerRounds {
    private static final ThreadMXBean CLOCK = ManagementFactory.getThreadMXBean();

    public static void main(String[] args) throws Exception {
        List<String> rules = Files.readAllLines(Path.of(args[0]), StandardCharsets.UTF_8);
        List<String> events = Files.readAllLines(Path.of(args[1]), StandardCharsets.UTF_8);
        long began = CLOCK.getCurrentThreadCpuTime();
        Machine machine = new Machine();
        for (int at = 0; at < rules.size(); at++) {
            machine.addRule("r" + at, rules.get(at));
        }
        System.out.println("built " + (CLOCK.getCurrentThreadCpuTime() - began) / 1e9);
        Scanner in = new Scanner(System.in);
        while (in.hasNextLine()) {
            in.nextLine();
            began = CLOCK.getCurrentThreadCpuTime();
            int hits = 0;
            for (String event : events) {
                hits += machine.rulesForJSONEvent(event).size();
            }
            System.out.println((CLOCK.getCurrentThreadCpuTime() - began) / 1e3 / events.size() + " " + hits);
        }
    }
}
