from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("containers", "0006_image_details")]

    operations = [
        migrations.AddField(model_name="container", name="hooks", field=models.JSONField(blank=True, default=list)),
    ]
