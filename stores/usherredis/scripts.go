package usherredis

import (
	_ "embed" // for the scripts
	"strings"

	"github.com/redis/rueidis"
)

// The parts of the scripts. A script is the concatenation of the parts that it needs.
var (
	//go:embed base.lua
	baseLua string
	//go:embed parts.lua
	partsLua string
	//go:embed call.lua
	callLua string
	//go:embed places.lua
	placesLua string
	//go:embed holds.lua
	holdsLua string
	//go:embed usage.lua
	usageLua string
	//go:embed bucket.lua
	bucketLua string
	//go:embed rolling.lua
	rollingLua string
	//go:embed calendar.lua
	calendarLua string
	//go:embed key.lua
	keyLua string
	//go:embed take.lua
	takeLua string
	//go:embed adjust.lua
	adjustLua string
	//go:embed renew.lua
	renewLua string
	//go:embed reset.lua
	resetLua string
	//go:embed record.lua
	recordLua string
	//go:embed claim.lua
	claimLua string
	//go:embed extend.lua
	extendLua string
	//go:embed finish.lua
	finishLua string
	//go:embed find.lua
	findLua string
	//go:embed delete.lua
	deleteLua string
)

// evenIfFull lets a script write when the memory of the server is full.
const evenIfFull = "#!lua flags=allow-oom"

var (
	takeScript   = script(baseLua, partsLua, callLua, placesLua, holdsLua, usageLua, bucketLua, rollingLua, calendarLua, keyLua, takeLua)
	adjustScript = script(baseLua, partsLua, callLua, placesLua, holdsLua, usageLua, bucketLua, rollingLua, calendarLua, keyLua, adjustLua)
	renewScript  = script(evenIfFull, baseLua, partsLua, callLua, placesLua, holdsLua, renewLua)
	resetScript  = script(evenIfFull, baseLua, partsLua, callLua, placesLua, holdsLua, resetLua)

	claimScript  = script(baseLua, recordLua, claimLua)
	extendScript = script(evenIfFull, baseLua, recordLua, extendLua)
	finishScript = script(baseLua, recordLua, finishLua)
	// endScript is for results without a payload: it writes a record that is as long as the
	// claim.
	endScript = script(evenIfFull, baseLua, recordLua, finishLua)
	// findScript may not be marked as one without writes: then a replica, which may be
	// behind, would run it.
	findScript   = script(evenIfFull, baseLua, recordLua, findLua)
	deleteScript = script(evenIfFull, baseLua, recordLua, deleteLua)
)

func script(parts ...string) *rueidis.Lua { return rueidis.NewLuaScript(strings.Join(parts, "\n")) }
