// Package storetest has what the test suites for stores share.
package storetest

import (
	"errors"
	"sync"
	"testing"
)

// Each calls f n times concurrently and returns how often it returned which error. An
// error that wraps one of known counts as that one.
func Each(n int, f func(i int) error, known ...error) map[error]int {
	var (
		wg     sync.WaitGroup
		start  = make(chan struct{})
		errs   = make([]error, n)
		counts = map[error]int{}
	)
	for i := range n {
		wg.Go(func() {
			<-start
			errs[i] = f(i)
		})
	}
	close(start)
	wg.Wait()
	for _, err := range errs {
		for _, k := range known {
			if errors.Is(err, k) {
				err = k
			}
		}
		counts[err]++
	}
	return counts
}

// WantError fails t unless err wraps want. What names the call that returned err.
func WantError(t testing.TB, what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error %v, want %v", what, err, want)
	}
}
