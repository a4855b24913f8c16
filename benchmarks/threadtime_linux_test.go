package benchmarks_test

import (
	"time"

	"golang.org/x/sys/unix"
)

// threadTime is how long the thread of the caller has run.
func threadTime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
