package loopback

import (
	"fmt"
	"slices"
)

// Closed is the name of a result of the closed loop.
func Closed(work string, procs int, stack string) string { return name("closed", work, procs, stack) }

// Open is the name of a result of the open loop.
func Open(work string, procs int, stack string) string { return name("open", work, procs, stack) }

func name(loop, work string, procs int, stack string) string {
	return fmt.Sprintf("Loopback/%s/%s/procs=%d/%s", loop, work, procs, stack)
}

// A Target is the share of the bare handler's requests per second that usher must
// keep.
type Target struct {
	Work  string
	Procs int
	Share float64
}

var targets = []Target{{"get-key", 1, 0.92}, {"get-jwt", 1, 0.90}}

// Targets returns what a whole server must reach, in the order of a report.
func Targets() []Target { return slices.Clone(targets) }
