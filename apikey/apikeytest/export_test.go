package apikeytest

import "time"

// SetPatience sets how long the suite waits for something that a wrong store never does.
func SetPatience(d time.Duration) { patience = d }
