# Verses of `bible -f` ("Ge1:1 In the beginning …") to chapters under their names, one verse a line.
BEGIN {
  split("Ge Genesis Exo Exodus Lev Leviticus Num Numbers Deu Deuteronomy Josh Joshua Jdgs Judges 1Sm 1_Samuel 2Sm 2_Samuel 1Ki 1_Kings 2Ki 2_Kings 1Chr 1_Chronicles 2Chr 2_Chronicles Neh Nehemiah Est Esther Psa Psalm Prv Proverbs Eccl Ecclesiastes SSol Song_of_Solomon Isa Isaiah Jer Jeremiah Lam Lamentations Eze Ezekiel Dan Daniel Hos Hosea Obad Obadiah Mic Micah Nahum Nahum Hab Habakkuk Zep Zephaniah Hag Haggai Zec Zechariah Mal Malachi Mat Matthew Rom Romans 1Cor 1_Corinthians 2Cor 2_Corinthians Gal Galatians Eph Ephesians Phi Philippians Col Colossians 1Th 1_Thessalonians 2Th 2_Thessalonians 1Tim 1_Timothy 2Tim 2_Timothy Phmn Philemon Heb Hebrews Jas James 1Pet 1_Peter 2Pet 2_Peter 1Jn 1_John 2Jn 2_John 3Jn 3_John Rev Revelation", w)
  for (i = 1; i in w; i += 2) { gsub("_", " ", w[i + 1]); name[w[i]] = w[i + 1] }
}
{ split($1, p, ":"); if (p[1] != chapter) {
    chapter = p[1]; book = chapter; sub(/[0-9]+$/, "", book); number = substr(chapter, length(book) + 1)
    printf "%s%s %s\n\n", (NR > 1 ? "\f" : ""), (book in name ? name[book] : book), number }
  sub(/^[^ ]+ /, ""); print }
