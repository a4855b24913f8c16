-- Parts of a script that few calls need. Each is made when it is first used: to make all
-- functions of a script takes longer than many a decision.
local make = {}
local part = setmetatable({}, {
  __index = function(made, name)
    made[name] = make[name]()
    return made[name]
  end,
})
