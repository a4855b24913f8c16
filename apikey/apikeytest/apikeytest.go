// Package apikeytest tests that an [apikey.Store] fulfils its contract, and those of
// [apikey.Admin] and [apikey.Notifier] if the store is one.
//
//	func TestStore(t *testing.T) {
//		apikeytest.TestStore(t, func(t testing.TB) apikey.Store { return open(t) })
//	}
package apikeytest

import (
	"testing"

	"github.com/usher-go/usher/apikey"
)

// TestStore runs every test of the contract of [apikey.Store], each on a store that
// open returns. The stores may share a database: each test uses its own owners and IDs.
// The last test closes its store, so a later Close by open must be harmless, as the
// contract says.
//
// If a store is an [apikey.Admin], its methods are tested as well. Those tests remove keys
// that ended before the year 1900, which no other keys should have.
func TestStore(t *testing.T, open func(testing.TB) apikey.Store) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, apikey.Store)
	}{
		{"a record is returned as it was stored", testRoundTrip},
		{"a record with every field is restored from a backup", testRestore},
		{"a record with every value at its bound is returned as it was stored", testLargest},
		{"a record without optional values is returned as it was stored", testEmptyValues},
		{"arguments and results share nothing with the store", testIsolation},
		{"unknown keys and keys of other owners look the same", testNotFound},
		{"an ID or a hash cannot be used twice", testUnique},
		{"owners and IDs are compared byte by byte", testBytes},
		{"every byte of a hash counts", testHashes},
		{"each limit counts the keys that it is about, and no others", testCounts},
		{"the count of active keys follows every change", testActive},
		{"parallel changes leave exactly as many keys as each limit permits", testParallelChanges},
		{"each owner has its own limits", testOwnersApart},
		{"a change that is repeated at the limit is a conflict", testRepeatedAtLimit},
		{"a list is paged, with the newest key first", testList},
		{"an update replaces the settings and nothing else", testUpdate},
		{"an update to empty values also replaces the settings", testUpdateToNothing},
		{"an update of an old revision changes nothing", testUpdateConflict},
		{"one of several parallel updates of a revision succeeds", testParallelUpdates},
		{"a key that is refused now is stored and changed like any other", testStates},
		{"a rotation updates one key and adds another", testRotate},
		{"a rotation that fails changes nothing", testRotateAtomic},
		{"one of several parallel rotations succeeds", testParallelRotations},
		{"revoking a revoked key changes nothing", testRevoke},
		{"parallel revocations agree", testParallelRevocations},
		{"the last use never moves back", testTouch},
		{"the time and the address of a use belong together", testTouchAddress},
		{"a use never changes a revoked key", testTouchRevoked},
		{"the latest of parallel uses is kept", testParallelTouches},
		{"a context that has ended ends the call", testContext},
		{"watchers are notified of changes", testWatch},
		{"each watcher gets each change, one at a time", testWatchers},
		{"a slow watcher loses no change without an error", testSlowWatcher},
		{"a filter selects exactly what matches", testFilters},
		{"every order is exact and has pages without gaps", testOrder},
		{"a page stays right while keys are added and removed", testCursor},
		{"all that matches is revoked, and nothing else", testRevokeAll},
		{"nothing is revoked without a condition", testRevokeNothing},
		{"parallel revocations of all revoke each key once", testParallelRevokeAlls},
		{"keys that have ended are purged, and no others", testPurge},
		{"a closed store refuses every call", testClose},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, open(t)) })
	}
}
