"""What every suite shares: the machine, its ceilings, interleaved timing, data, tables and the dated JSON."""
