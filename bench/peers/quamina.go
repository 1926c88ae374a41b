// One pass of quamina over the events for each line on standard input; what bench/match.py asks (see bench/match_peers.py).
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"quamina.net/go/quamina/v2"
)

// Microseconds of CPU that this thread has used.
func cpu() float64 {
	var used syscall.Rusage
	const thread = 1
	if err := syscall.Getrusage(thread, &used); err != nil {
		panic(err)
	}
	return float64(used.Utime.Sec+used.Stime.Sec)*1e6 + float64(used.Utime.Usec+used.Stime.Usec)
}

func lines(name string) [][]byte {
	file, err := os.Open(name)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	reader := bufio.NewScanner(file)
	reader.Buffer(make([]byte, 1<<20), 1<<20)
	var found [][]byte
	for reader.Scan() {
		found = append(found, append([]byte(nil), reader.Bytes()...))
	}
	return found
}

func main() {
	runtime.LockOSThread()
	patterns, events := lines(os.Args[1]), lines(os.Args[2])
	began := cpu()
	matcher, err := quamina.New()
	if err != nil {
		panic(err)
	}
	for at, pattern := range patterns {
		if err := matcher.AddPattern("r"+strconv.Itoa(at), string(pattern)); err != nil {
			fmt.Println("refused", err)
			return
		}
	}
	fmt.Println("built", (cpu()-began)/1e6)
	for input := bufio.NewScanner(os.Stdin); input.Scan(); {
		began, hits := cpu(), 0
		for _, event := range events {
			found, err := matcher.MatchesForEvent(event)
			if err != nil {
				panic(err)
			}
			hits += len(found)
		}
		fmt.Println((cpu()-began)/float64(len(events)), hits)
	}
}
