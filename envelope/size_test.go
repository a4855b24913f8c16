package envelope

import (
	"reflect"
	"testing"
)

// With more, each request would pay for the next size class of the allocator, which is
// 1,024. The allocator adds 8 bytes.
func TestATransactionFitsItsSizeClass(t *testing.T) {
	if got := reflect.TypeFor[outermost]().Size(); got > 896-8 {
		t.Errorf("%d bytes, want at most 888", got)
	}
}
