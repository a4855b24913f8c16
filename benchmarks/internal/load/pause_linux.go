package load

import (
	"time"

	"golang.org/x/sys/unix"
)

// Pause waits for d and is late by microseconds. On Linux [time.Sleep] is late by up to
// a millisecond if nothing else runs (https://go.dev/issue/44343), many times as long as
// a response over the loopback takes.
func Pause(d time.Duration) {
	// The kernel may be late by 50 us unless that is changed, thread by thread.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	t := unix.NsecToTimespec(int64(d))
	_ = unix.Nanosleep(&t, nil) // early if a signal came: Open asks again
}
