package sessiontest

import "time"

// SetPatience sets how long the tests wait for something that a wrong store never does.
func SetPatience(d time.Duration) { patience = d }
