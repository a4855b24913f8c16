package delay_test

import (
	"math"
	"testing"
	"time"

	"github.com/usher-go/usher/internal/delay"
)

func TestSecondsAreRoundedUp(t *testing.T) {
	for d, want := range map[time.Duration]int64{
		0:                   0,
		1:                   1,
		time.Second - 1:     1,
		time.Second:         1,
		time.Second + 1:     2,
		math.MaxInt64:       9223372037,
		-time.Second:        -1,
		-time.Second / 2:    0,
		90 * time.Second:    90,
		1500 * time.Second:  1500,
		time.Hour + 5999999: 3601,
	} {
		if got := delay.Seconds(d); got != want {
			t.Errorf("%v: %d, want %d", d, got, want)
		}
	}
}
